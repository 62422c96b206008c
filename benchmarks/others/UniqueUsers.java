import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Unique users a minute with Kafka Streams, exactly once: parse, bring all to one partition, keep the users of an open
 * minute in a store, write its count when it closes. Ends when nothing has come for a while.
 *
 * <p>java -cp CLASSES:JARS UniqueUsers localhost:9092 in out STATE_FOLDER APPLICATION_ID
 *
 * <p>No aggregate of the DSL: it would write the whole set of a window again with every event.
 */
public final class UniqueUsers {
    private static final long WINDOW_MS = 60_000;
    private static final long DISORDER_MS = 5_000;
    private static final long MAX_FUTURE_MS = 5_000;
    private static final Duration IDLE = Duration.ofSeconds(10);
    private static volatile long lastRecord;

    @JsonIgnoreProperties(ignoreUnknown = true)
    static final class Event {
        public String ts;
        public String uid;
    }

    /** Passes on the user as the key, at the event's time; drops what does not count. */
    static final class Parse extends ContextualProcessor<byte[], byte[], String, String> {
        private final ObjectReader reader = new ObjectMapper().readerFor(Event.class);

        @Override
        public void process(Record<byte[], byte[]> record) {
            lastRecord = System.nanoTime();
            try {
                Event event = record.value() == null ? null : reader.readValue(record.value());
                long time = event == null ? -1 : Math.multiplyExact(Long.parseLong(event.ts), 1_000L);
                boolean counts = time >= 0 && time <= record.timestamp() + MAX_FUTURE_MS;
                if (counts && event.uid != null && !event.uid.isEmpty()) {
                    context().forward(new Record<>(event.uid, "", time));
                }
            } catch (IOException | ArithmeticException | NumberFormatException malformed) {
                // Skipped.
            }
        }
    }

    /** Counts events and users of a minute, and passes the result on when it closes. */
    static final class Count extends ContextualProcessor<String, String, String, String> {
        private KeyValueStore<String, Long> seen;
        private KeyValueStore<Long, Long> events;
        private long nextClose = Long.MIN_VALUE;

        @Override
        public void init(ProcessorContext<String, String> context) {
            super.init(context);
            seen = context.getStateStore("seen");
            events = context.getStateStore("events");
        }

        @Override
        public void process(Record<String, String> record) {
            lastRecord = System.nanoTime();
            long start = record.timestamp() - record.timestamp() % WINDOW_MS;
            if (closesAt(start) > context().currentStreamTimeMs()) {
                Long before = events.get(start);
                events.put(start, before == null ? 1 : before + 1);
                seen.putIfAbsent(start + "|" + record.key(), record.timestamp());
            }
            if (context().currentStreamTimeMs() >= nextClose) {
                closeWindows(context().currentStreamTimeMs());
            }
        }

        private void closeWindows(long now) {
            nextClose = Long.MAX_VALUE;
            List<KeyValue<Long, Long>> open = new ArrayList<>();
            try (KeyValueIterator<Long, Long> all = events.all()) {
                all.forEachRemaining(open::add);
            }
            for (KeyValue<Long, Long> window : open) {
                if (closesAt(window.key) > now) {
                    nextClose = Math.min(nextClose, closesAt(window.key));
                    continue;
                }
                List<String> users = new ArrayList<>();
                // "}" follows "|" and every character of a user's name.
                try (KeyValueIterator<String, Long> found = seen.range(window.key + "|", window.key + "}")) {
                    found.forEachRemaining(user -> users.add(user.key));
                }
                users.forEach(seen::delete);
                events.delete(window.key);
                String name = Instant.ofEpochMilli(window.key).toString();
                String result = "{\"window_start\":\"%s\",\"unique_users\":%d,\"events\":%d}";
                context().forward(new Record<>(name, result.formatted(name, users.size(), window.value), window.key));
            }
        }

        private static long closesAt(long start) {
            return start + WINDOW_MS + DISORDER_MS;
        }
    }

    public static void main(String[] args) throws InterruptedException {
        Properties config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        config.put(StreamsConfig.STATE_DIR_CONFIG, args[3]);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, args[4]);
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
        config.put("auto.offset.reset", "earliest");

        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(Stores.keyValueStoreBuilder(
                Stores.inMemoryKeyValueStore("seen"), Serdes.String(), Serdes.Long()));
        builder.addStateStore(Stores.keyValueStoreBuilder(
                Stores.inMemoryKeyValueStore("events"), Serdes.Long(), Serdes.Long()).withCachingEnabled());
        builder.stream(args[1], Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .process(Parse::new)
                .repartition(Repartitioned.with(Serdes.String(), Serdes.String()).withName("users")
                        .withNumberOfPartitions(1))
                .process(Count::new, "seen", "events")
                .to(args[2], Produced.with(Serdes.String(), Serdes.String()));

        KafkaStreams streams = new KafkaStreams(builder.build(), config);
        streams.start();
        while (streams.state() != KafkaStreams.State.ERROR
                && (lastRecord == 0 || System.nanoTime() - lastRecord < IDLE.toNanos())) {
            Thread.sleep(100);
        }
        boolean failed = streams.state() == KafkaStreams.State.ERROR;
        streams.close(Duration.ofSeconds(30));
        System.exit(failed ? 1 : 0);
    }
}
