package uniques;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Sends many records in one call, because each call from Python takes a third of a millisecond. Written for Janino. */
public final class RecordSender {

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

    private static byte[] next(ByteBuffer packed) {
        byte[] bytes = new byte[packed.getInt()];
        packed.get(bytes);
        return bytes;
    }
}
