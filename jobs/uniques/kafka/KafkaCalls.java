package uniques;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;

/**
 * What takes many calls of Kafka's client, as one call, because each from Python takes a third of a millisecond.
 * Written for Janino.
 */
public final class KafkaCalls {

    /** Sends the records and the group's offsets in one transaction. */
    public void commit(Producer producer, String topic, byte[] packed, Map offsets, ConsumerGroupMetadata group)
            throws Throwable {
        producer.beginTransaction();
        // Offsets first, and wait for each record: both fail at once when the producer is fenced off, while a commit
        // may then wait until max.block.ms.
        producer.sendOffsetsToTransaction(offsets, group);
        send(producer, topic, packed);
        producer.commitTransaction();
    }

    /** Sends the records, and returns once Kafka has all of them. */
    public void send(Producer producer, String topic, byte[] packed) throws Throwable {
        ByteBuffer left = ByteBuffer.wrap(packed);
        List sent = new ArrayList();
        while (left.hasRemaining()) {
            byte[] key = next(left);
            byte[] value = next(left);
            sent.add(producer.send(new ProducerRecord(topic, key, value)));
        }
        producer.flush();
        for (Iterator each = sent.iterator(); each.hasNext();) {
            try {
                ((Future) each.next()).get();
            } catch (ExecutionException error) {
                throw error.getCause();
            }
        }
    }

    /** The end of each partition of topics, a line each: topic, partition and offset. */
    public String readEnds(Admin admin, Collection topics, String isolation, long seconds) throws Exception {
        Map described = (Map) admin.describeTopics(topics).allTopicNames().get(seconds, TimeUnit.SECONDS);
        Map asked = new HashMap();
        for (Iterator each = described.values().iterator(); each.hasNext();) {
            TopicDescription topic = (TopicDescription) each.next();
            for (Iterator parts = topic.partitions().iterator(); parts.hasNext();) {
                int partition = ((TopicPartitionInfo) parts.next()).partition();
                asked.put(new TopicPartition(topic.name(), partition), OffsetSpec.latest());
            }
        }
        ListOffsetsOptions options = new ListOffsetsOptions(IsolationLevel.valueOf(isolation));
        Map ends = (Map) admin.listOffsets(asked, options).all().get(seconds, TimeUnit.SECONDS);
        StringBuilder lines = new StringBuilder();
        for (Iterator each = ends.entrySet().iterator(); each.hasNext();) {
            Map.Entry entry = (Map.Entry) each.next();
            TopicPartition partition = (TopicPartition) entry.getKey();
            long offset = ((ListOffsetsResultInfo) entry.getValue()).offset();
            lines.append(partition.topic()).append(' ').append(partition.partition()).append(' ').append(offset);
            lines.append('\n');
        }
        return lines.toString();
    }

    /** Asks for the end of each partition, a line each: topic and partition; does not wait for the answer. */
    public Future askEnds(Admin admin, String partitions) {
        Map asked = new HashMap();
        String[] lines = partitions.split("\n");
        for (int i = 0; i < lines.length; i++) {
            String[] parts = lines[i].split(" ");
            asked.put(new TopicPartition(parts[0], Integer.parseInt(parts[1])), OffsetSpec.latest());
        }
        return admin.listOffsets(asked).all();
    }

    /** The leader epoch of each partition that `askEnds` asked for, a line each: topic, partition, epoch. */
    public String readEpochs(Future ends) throws Exception {
        StringBuilder lines = new StringBuilder();
        for (Iterator each = ((Map) ends.get()).entrySet().iterator(); each.hasNext();) {
            Map.Entry entry = (Map.Entry) each.next();
            TopicPartition partition = (TopicPartition) entry.getKey();
            Optional epoch = ((ListOffsetsResultInfo) entry.getValue()).leaderEpoch();
            // Brokers before Kafka 2.1 have none.
            if (epoch.isPresent()) {
                lines.append(partition.topic()).append(' ').append(partition.partition()).append(' ');
                lines.append(epoch.get()).append('\n');
            }
        }
        return lines.toString();
    }

    private static byte[] next(ByteBuffer packed) {
        byte[] bytes = new byte[packed.getInt()];
        packed.get(bytes);
        return bytes;
    }
}
