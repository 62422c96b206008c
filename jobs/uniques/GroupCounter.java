package uniques;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.Externalizable;
import java.io.IOException;
import java.io.ObjectInput;
import java.io.ObjectOutput;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import org.apache.datasketches.hll.HllSketch;
import org.apache.datasketches.hll.TgtHllType;
import org.apache.datasketches.hll.Union;
import org.apache.spark.sql.Encoder;
import org.apache.spark.sql.Encoders;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.expressions.Aggregator;
import org.apache.spark.sql.expressions.UserDefinedFunction;
import org.apache.spark.sql.functions;
import org.apache.spark.sql.types.StructType;

/**
 * Counts the users of the groups of a window: of each value of a dimension, or of several dimensions together.
 *
 * A breakdown keeps at most `maxGroups` names of groups. All other groups are one, `other`, so that nothing is lost and
 * the parts still unite to the total. A name that was kept once is never taken back: each of its events is counted under
 * it. So names are given up only where a window's state is saved; in the batch that first has too many, the largest stay.
 *
 * Written for Janino, which makes no bridge methods and knows no generics: hence Object, and raw types.
 */
public final class GroupCounter extends Aggregator {
    private static final long serialVersionUID = 1L;
    private static final JsonFactory JSON = new JsonFactory();
    // How often Spark has written a buffer: after the map side, after a batch is merged, and with the state in it.
    private static final int OF_BATCH = 2;
    private static final int OF_STATE = 3;

    private final String[][] names;
    private final int[][] places;
    private final int maxGroups;
    private final int lgK;
    private final boolean withSketch;
    private final boolean withUsers;
    private final StructType input;
    private final StructType output;

    private GroupCounter(
            String[][] names, int[][] places, int maxGroups, int lgK, boolean withSketch, boolean withUsers,
            StructType input, StructType output) {
        this.names = names;
        this.places = places;
        this.maxGroups = maxGroups;
        this.lgK = lgK;
        this.withSketch = withSketch;
        this.withUsers = withUsers;
        this.input = input;
        this.output = output;
    }

    /**
     * The function, for the session, of a user and the values of dimensions. A breakdown has the `names` of its dimensions
     * and their `places` among the values. Users are counted with sketches, or exactly, or both.
     */
    public static UserDefinedFunction create(
            List names, List places, int maxGroups, int lgK, boolean withSketch, boolean withUsers, StructType input,
            StructType output) {
        String[][] allNames = new String[names.size()][];
        int[][] allPlaces = new int[names.size()][];
        for (int i = 0; i < allNames.length; i++) {
            List of = (List) places.get(i);
            allNames[i] = new String[of.size()];
            allPlaces[i] = new int[of.size()];
            for (int j = 0; j < of.size(); j++) {
                allNames[i][j] = (String) ((List) names.get(i)).get(j);
                allPlaces[i][j] = ((Number) of.get(j)).intValue();
            }
        }
        GroupCounter counter =
            new GroupCounter(allNames, allPlaces, maxGroups, lgK, withSketch, withUsers, input, output);
        return functions.udaf(counter, Encoders.row(input));
    }

    /** The users of one group. */
    private static final class Entry {
        long events;
        HllSketch sketch;
        HashSet users;
        // Whether the name was kept with the state of the window before.
        boolean isKept;

        void add(Entry other, int lgK) {
            this.events += other.events;
            this.isKept |= other.isKept;
            if (this.users != null) {
                this.users.addAll(other.users);
            }
            if (this.sketch != null) {
                Union union = new Union(lgK);
                union.update(this.sketch);
                union.update(other.sketch);
                this.sketch = union.getResult(TgtHllType.HLL_8);
            }
        }
    }

    /** The groups of one breakdown. When `isFull`, events of names that are not there belong to `other`. */
    private static final class Part {
        final HashMap named = new HashMap();
        Entry other;
        boolean isFull;

        void addOther(Entry entry, int lgK) {
            if (this.other == null) {
                this.other = entry;
            } else {
                this.other.add(entry, lgK);
            }
        }

        void add(Part that, int lgK) {
            HashMap mine = new HashMap(this.named);
            for (Iterator each = that.named.entrySet().iterator(); each.hasNext();) {
                Map.Entry entry = (Map.Entry) each.next();
                Entry found = (Entry) mine.remove(entry.getKey());
                if (found != null) {
                    found.add((Entry) entry.getValue(), lgK);
                } else if (this.isFull) {
                    this.addOther((Entry) entry.getValue(), lgK);
                } else {
                    this.named.put(entry.getKey(), entry.getValue());
                }
            }
            if (that.isFull) {
                for (Iterator each = mine.entrySet().iterator(); each.hasNext();) {
                    Map.Entry entry = (Map.Entry) each.next();
                    this.named.remove(entry.getKey());
                    this.addOther((Entry) entry.getValue(), lgK);
                }
            }
            if (that.other != null) {
                this.addOther(that.other, lgK);
            }
            this.isFull |= that.isFull;
        }

        /** Keeps the names that were kept before, then the largest; of equal ones the first in the alphabet. */
        void shrink(int maxGroups, int lgK) {
            if (this.named.size() <= maxGroups) {
                return;
            }
            this.isFull = true;
            ArrayList entries = new ArrayList(this.named.entrySet());
            Collections.sort(entries, new BySize());
            for (int i = maxGroups; i < entries.size(); i++) {
                Map.Entry entry = (Map.Entry) entries.get(i);
                this.named.remove(entry.getKey());
                this.addOther((Entry) entry.getValue(), lgK);
            }
        }
    }

    private static final class BySize implements Comparator {
        @Override
        public int compare(Object a, Object b) {
            Entry one = (Entry) ((Map.Entry) a).getValue();
            Entry two = (Entry) ((Map.Entry) b).getValue();
            if (one.isKept != two.isKept) {
                return one.isKept ? -1 : 1;
            }
            if (one.events != two.events) {
                return one.events > two.events ? -1 : 1;
            }
            return String.valueOf(((Map.Entry) a).getKey()).compareTo(String.valueOf(((Map.Entry) b).getKey()));
        }
    }

    /** What Spark keeps of a window. It is written as: settings, then each breakdown with its groups. */
    public static final class Groups implements Externalizable {
        private static final long serialVersionUID = 1L;
        private Part[] parts = new Part[0];
        private int maxGroups;
        private int lgK;
        private int written;

        public Groups() {
            // for Java, which reads it
        }

        @Override
        public void writeExternal(ObjectOutput out) throws IOException {
            out.writeByte(Math.min(this.written + 1, OF_STATE));
            out.writeInt(this.maxGroups);
            out.writeByte(this.lgK);
            out.writeInt(this.parts.length);
            for (int i = 0; i < this.parts.length; i++) {
                Part part = this.parts[i];
                if (this.written >= OF_BATCH) {
                    part.shrink(this.maxGroups, this.lgK);
                }
                out.writeBoolean(part.isFull);
                out.writeBoolean(part.other != null);
                if (part.other != null) {
                    writeEntry(out, part.other);
                }
                out.writeInt(part.named.size());
                for (Iterator each = part.named.entrySet().iterator(); each.hasNext();) {
                    Map.Entry entry = (Map.Entry) each.next();
                    List key = (List) entry.getKey();
                    out.writeByte(key.size());
                    for (int j = 0; j < key.size(); j++) {
                        writeText(out, (String) key.get(j));
                    }
                    writeEntry(out, (Entry) entry.getValue());
                }
            }
        }

        @Override
        public void readExternal(ObjectInput in) throws IOException {
            this.written = in.readByte();
            this.maxGroups = in.readInt();
            this.lgK = in.readByte();
            this.parts = new Part[in.readInt()];
            for (int i = 0; i < this.parts.length; i++) {
                Part part = new Part();
                this.parts[i] = part;
                part.isFull = in.readBoolean();
                if (in.readBoolean()) {
                    part.other = readEntry(in);
                }
                int groups = in.readInt();
                for (int j = 0; j < groups; j++) {
                    String[] key = new String[in.readByte()];
                    for (int k = 0; k < key.length; k++) {
                        key[k] = readText(in);
                    }
                    Entry entry = readEntry(in);
                    entry.isKept = this.written >= OF_STATE;
                    part.named.put(Arrays.asList(key), entry);
                }
            }
        }

        private static void writeEntry(ObjectOutput out, Entry entry) throws IOException {
            out.writeLong(entry.events);
            byte[] sketch = entry.sketch == null ? new byte[0] : entry.sketch.toCompactByteArray();
            out.writeInt(sketch.length);
            out.write(sketch);
            out.writeInt(entry.users == null ? -1 : entry.users.size());
            if (entry.users != null) {
                for (Iterator each = entry.users.iterator(); each.hasNext();) {
                    writeText(out, (String) each.next());
                }
            }
        }

        private static Entry readEntry(ObjectInput in) throws IOException {
            Entry entry = new Entry();
            entry.events = in.readLong();
            byte[] sketch = new byte[in.readInt()];
            in.readFully(sketch);
            entry.sketch = sketch.length == 0 ? null : HllSketch.heapify(sketch);
            int users = in.readInt();
            if (users >= 0) {
                entry.users = new HashSet();
                for (int i = 0; i < users; i++) {
                    entry.users.add(readText(in));
                }
            }
            return entry;
        }

        private static void writeText(ObjectOutput out, String text) throws IOException {
            byte[] bytes = text == null ? null : text.getBytes(StandardCharsets.UTF_8);
            out.writeInt(bytes == null ? -1 : bytes.length);
            if (bytes != null) {
                out.write(bytes);
            }
        }

        private static String readText(ObjectInput in) throws IOException {
            int length = in.readInt();
            if (length < 0) {
                return null;
            }
            byte[] bytes = new byte[length];
            in.readFully(bytes);
            return new String(bytes, StandardCharsets.UTF_8);
        }
    }

    @Override
    public Object zero() {
        Groups groups = new Groups();
        groups.parts = new Part[this.names.length];
        groups.maxGroups = this.maxGroups;
        groups.lgK = this.lgK;
        for (int i = 0; i < groups.parts.length; i++) {
            groups.parts[i] = new Part();
        }
        return groups;
    }

    @Override
    public Object reduce(Object buffer, Object event) {
        Groups groups = (Groups) buffer;
        Row row = (Row) event;
        String user = row.getString(0);
        for (int i = 0; i < this.places.length; i++) {
            int[] of = this.places[i];
            String[] key = new String[of.length];
            for (int j = 0; j < of.length; j++) {
                key[j] = row.getString(1 + of[j]);
            }
            List name = Arrays.asList(key);
            Entry entry = (Entry) groups.parts[i].named.get(name);
            if (entry == null) {
                entry = new Entry();
                entry.sketch = this.withSketch ? new HllSketch(this.lgK, TgtHllType.HLL_8) : null;
                entry.users = this.withUsers ? new HashSet() : null;
                groups.parts[i].named.put(name, entry);
            }
            entry.events++;
            if (this.withSketch) {
                entry.sketch.update(user);
            }
            if (this.withUsers) {
                entry.users.add(user);
            }
        }
        return groups;
    }

    @Override
    public Object merge(Object one, Object two) {
        Groups groups = (Groups) one;
        Groups others = (Groups) two;
        for (int i = 0; i < groups.parts.length; i++) {
            groups.parts[i].add(others.parts[i], this.lgK);
        }
        groups.written = Math.max(groups.written, others.written);
        return groups;
    }

    @Override
    public Object finish(Object buffer) {
        Groups groups = (Groups) buffer;
        ArrayList rows = new ArrayList();
        for (int i = 0; i < groups.parts.length; i++) {
            Part part = groups.parts[i];
            part.shrink(this.maxGroups, this.lgK);
            for (Iterator each = part.named.entrySet().iterator(); each.hasNext();) {
                Map.Entry entry = (Map.Entry) each.next();
                rows.add(this.makeRow(this.describe(i, (List) entry.getKey()), false, (Entry) entry.getValue()));
            }
            if (part.other != null) {
                List nothing = Arrays.asList(new String[this.names[i].length]);
                rows.add(this.makeRow(this.describe(i, nothing), true, part.other));
            }
        }
        return RowFactory.create(new Object[] {rows.toArray(new Row[0])});
    }

    private Row makeRow(String group, boolean isOther, Entry entry) {
        long users = entry.users == null ? 0 : entry.users.size();
        byte[] sketch = null;
        if (this.withSketch) {
            // A union's estimate depends on the registers alone, not on the order of the users.
            Union union = new Union(this.lgK);
            union.update(entry.sketch);
            HllSketch normalized = union.getResult(TgtHllType.HLL_8);
            users = this.withUsers ? users : Math.round(normalized.getEstimate());
            sketch = normalized.toCompactByteArray();
        }
        return RowFactory.create(
            new Object[] {group, Boolean.valueOf(isOther), Long.valueOf(users), Long.valueOf(entry.events), sketch});
    }

    /** The group as a JSON object: path -> value or null. */
    private String describe(int breakdown, List values) {
        StringWriter text = new StringWriter();
        try {
            JsonGenerator json = JSON.createGenerator(text);
            json.writeStartObject();
            for (int i = 0; i < values.size(); i++) {
                json.writeStringField(this.names[breakdown][i], (String) values.get(i));
            }
            json.writeEndObject();
            json.close();
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
        return text.toString();
    }

    @Override
    public Encoder bufferEncoder() {
        return Encoders.javaSerialization(Groups.class);
    }

    @Override
    public Encoder outputEncoder() {
        return Encoders.row(this.output);
    }
}
