package uniques;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.time.DateTimeException;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import org.apache.spark.sql.api.java.UDF1;
import org.apache.spark.sql.expressions.UserDefinedFunction;
import org.apache.spark.sql.functions;
import org.apache.spark.sql.types.DataTypes;
import org.sparkproject.spark_core.protobuf.ByteString;
import org.sparkproject.spark_core.protobuf.DescriptorProtos;
import org.sparkproject.spark_core.protobuf.Descriptors;
import org.sparkproject.spark_core.protobuf.DynamicMessage;
import org.sparkproject.spark_core.protobuf.Message;

/**
 * A Protobuf message as the text of a JSON object, null where the bytes are none. Fields have their names in the
 * schema; those that are not set are left out. With Spark's own copy of Protobuf. Written for Janino.
 */
public final class ProtobufDecoder implements UDF1<Object, Object> {
    private static final long serialVersionUID = 1L;
    private static final JsonFactory FACTORY = new JsonFactory();
    private static final String REPLACEMENT = "\ufffd";
    // What every Protobuf library has, and no schema brings along.
    private static final String[] WELL_KNOWN = {
        "Any", "Duration", "Empty", "FieldMask", "Struct", "Timestamp", "Wrappers"
    };

    /** Thrown where the bytes are none of the schema. */
    private static final class DamagedException extends RuntimeException {
        private static final long serialVersionUID = 1L;

        DamagedException() {
            super(null, null, false, false);
        }
    }

    private final List names;
    private final List files;
    private final String message;
    private transient Descriptors.Descriptor descriptor;
    private transient Descriptors.FileDescriptor file;

    private ProtobufDecoder(List names, List files, String message) {
        this.names = names;
        this.files = files;
        this.message = message;
    }

    /**
     * The function, for the session. `files` are serialized FileDescriptorProto, each behind those it imports, and
     * `names` what they are imported as. With a `message`, its full name, the bytes are that message. With an empty
     * one they are as Confluent writes them: first where in the last file the message is. Fails when the schema has an
     * error, or no such message.
     */
    public static UserDefinedFunction create(List names, List files, String message) throws Exception {
        ProtobufDecoder decoder = new ProtobufDecoder(new ArrayList(names), new ArrayList(files), message);
        decoder.load();
        return functions.udf(decoder, DataTypes.StringType).asNondeterministic();
    }

    private void load() throws Exception {
        HashMap known = new HashMap();
        for (int i = 0; i < WELL_KNOWN.length; i++) {
            Class holder = Class.forName(
                    "org.sparkproject.spark_core.protobuf." + WELL_KNOWN[i] + "Proto", true,
                    Message.class.getClassLoader());
            Descriptors.FileDescriptor found =
                    (Descriptors.FileDescriptor) holder.getMethod("getDescriptor", new Class[0]).invoke(null, new Object[0]);
            known.put(found.getName(), found);
        }
        Descriptors.FileDescriptor last = null;
        for (int i = 0; i < this.files.size(); i++) {
            DescriptorProtos.FileDescriptorProto proto =
                    DescriptorProtos.FileDescriptorProto.parseFrom((byte[]) this.files.get(i));
            proto = proto.toBuilder().setName((String) this.names.get(i)).build();
            ArrayList imports = new ArrayList();
            for (int j = 0; j < proto.getDependencyCount(); j++) {
                if (known.containsKey(proto.getDependency(j))) {
                    imports.add(known.get(proto.getDependency(j)));
                }
            }
            Descriptors.FileDescriptor[] found = new Descriptors.FileDescriptor[imports.size()];
            imports.toArray(found);
            // Options of messages and fields may come from files that nobody has; they do not change the bytes.
            last = Descriptors.FileDescriptor.buildFrom(proto, found, true);
            known.put(last.getName(), last);
            if (this.message.length() > 0 && this.descriptor == null) {
                this.descriptor = find(last.getMessageTypes(), this.message);
            }
        }
        if (last == null || this.message.length() > 0 && this.descriptor == null) {
            throw new IllegalArgumentException("there is no such message");
        }
        this.file = last;
    }

    private static Descriptors.Descriptor find(List types, String name) {
        for (int i = 0; i < types.size(); i++) {
            Descriptors.Descriptor type = (Descriptors.Descriptor) types.get(i);
            if (type.getFullName().equals(name)) {
                return type;
            }
            Descriptors.Descriptor inner = find(type.getNestedTypes(), name);
            if (inner != null) {
                return inner;
            }
        }
        return null;
    }

    @Override
    public Object call(Object payload) throws Exception {
        if (payload == null) {
            return null;
        }
        if (this.file == null) {
            this.load();
        }
        byte[] bytes = (byte[]) payload;
        int[] at = {0};
        try {
            Descriptors.Descriptor type = this.descriptor != null ? this.descriptor : this.readType(bytes, at);
            ByteString content = ByteString.copyFrom(bytes, at[0], bytes.length - at[0]);
            ByteArrayOutputStream text = new ByteArrayOutputStream();
            JsonGenerator json = FACTORY.createGenerator(text);
            writeMessage(DynamicMessage.parseFrom(type, content), json);
            json.close();
            String found = text.toString("UTF-8");
            if (!found.startsWith("{") || isDamaged(found, content)) {
                return null;
            }
            return found;
        } catch (DamagedException damaged) {
            return null;
        } catch (DateTimeException damaged) {
            return null;
        } catch (IOException damaged) {
            return null;
        }
    }

    /** The message that the first numbers name: how many there are, then its place in the file, and in each message. */
    private Descriptors.Descriptor readType(byte[] bytes, int[] at) {
        long length = readNumber(bytes, at);
        if (length == 0) {
            return child(this.file.getMessageTypes(), 0);
        }
        Descriptors.Descriptor type = null;
        for (long i = 0; i < length; i++) {
            type = child(type == null ? this.file.getMessageTypes() : type.getNestedTypes(), readNumber(bytes, at));
        }
        if (type == null) {
            throw new DamagedException();
        }
        return type;
    }

    private static Descriptors.Descriptor child(List types, long number) {
        if (number < 0 || number >= types.size()) {
            throw new DamagedException();
        }
        return (Descriptors.Descriptor) types.get((int) number);
    }

    private static long readNumber(byte[] bytes, int[] at) {
        long bits = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (at[0] >= bytes.length) {
                throw new DamagedException();
            }
            byte next = bytes[at[0]++];
            bits |= (next & 0x7FL) << shift;
            if (next >= 0) {
                return (bits >>> 1) ^ -(bits & 1);
            }
        }
        throw new DamagedException();
    }

    /** Whether the text has more replacement characters than the bytes: those of proto2 need not be UTF-8. */
    private static boolean isDamaged(String text, ByteString content) throws IOException {
        int damaged = count(text, REPLACEMENT);
        return damaged > 0 && damaged > count(content.toString("ISO-8859-1"), "\u00ef\u00bf\u00bd");
    }

    private static int count(String text, String part) {
        int found = 0;
        for (int at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length())) {
            found++;
        }
        return found;
    }

    private static void writeMessage(Message message, JsonGenerator json) throws IOException {
        Descriptors.Descriptor type = message.getDescriptorForType();
        Iterator numbers = message.getUnknownFields().asMap().keySet().iterator();
        while (numbers.hasNext()) {
            // A field of the schema with a value of another kind.
            if (type.findFieldByNumber(((Integer) numbers.next()).intValue()) != null) {
                throw new DamagedException();
            }
        }
        String name = type.getFullName();
        if (name.equals("google.protobuf.Timestamp")) {
            long seconds = ((Number) message.getField(type.findFieldByName("seconds"))).longValue();
            long nanos = ((Number) message.getField(type.findFieldByName("nanos"))).longValue();
            json.writeString(Instant.ofEpochSecond(seconds, nanos).toString());
        } else if (type.getFile().getName().equals("google/protobuf/wrappers.proto")) {
            Descriptors.FieldDescriptor field = type.findFieldByName("value");
            writeValue(field, message.getField(field), json);
        } else {
            json.writeStartObject();
            Iterator fields = message.getAllFields().entrySet().iterator();
            while (fields.hasNext()) {
                Map.Entry entry = (Map.Entry) fields.next();
                Descriptors.FieldDescriptor field = (Descriptors.FieldDescriptor) entry.getKey();
                json.writeFieldName(field.getName());
                writeField(field, entry.getValue(), json);
            }
            json.writeEndObject();
        }
    }

    private static void writeField(Descriptors.FieldDescriptor field, Object value, JsonGenerator json)
            throws IOException {
        if (!field.isRepeated()) {
            writeValue(field, value, json);
            return;
        }
        List items = (List) value;
        if (!field.isMapField()) {
            json.writeStartArray();
            for (int i = 0; i < items.size(); i++) {
                writeValue(field, items.get(i), json);
            }
            json.writeEndArray();
            return;
        }
        json.writeStartObject();
        for (int i = 0; i < items.size(); i++) {
            Message item = (Message) items.get(i);
            Descriptors.Descriptor type = item.getDescriptorForType();
            Descriptors.FieldDescriptor inner = type.findFieldByName("value");
            json.writeFieldName(String.valueOf(item.getField(type.findFieldByName("key"))));
            writeValue(inner, item.getField(inner), json);
        }
        json.writeEndObject();
    }

    private static void writeValue(Descriptors.FieldDescriptor field, Object value, JsonGenerator json)
            throws IOException {
        Descriptors.FieldDescriptor.Type type = field.getType();
        if (value instanceof Message) {
            writeMessage((Message) value, json);
        } else if (value instanceof String) {
            json.writeString((String) value);
        } else if (value instanceof Boolean) {
            json.writeBoolean(((Boolean) value).booleanValue());
        } else if (value instanceof ByteString) {
            json.writeBinary(((ByteString) value).toByteArray());
        } else if (value instanceof Descriptors.EnumValueDescriptor) {
            Descriptors.EnumValueDescriptor symbol = (Descriptors.EnumValueDescriptor) value;
            if (symbol.getIndex() < 0) {
                json.writeNumber(symbol.getNumber());
            } else {
                json.writeString(symbol.getName());
            }
        } else if (value instanceof Double) {
            json.writeNumber(((Double) value).doubleValue());
        } else if (value instanceof Float) {
            json.writeNumber(((Float) value).floatValue());
        } else if (type == Descriptors.FieldDescriptor.Type.UINT32 || type == Descriptors.FieldDescriptor.Type.FIXED32) {
            json.writeNumber(((Number) value).longValue() & 0xFFFFFFFFL);
        } else if (type == Descriptors.FieldDescriptor.Type.UINT64 || type == Descriptors.FieldDescriptor.Type.FIXED64) {
            json.writeNumber(Long.toUnsignedString(((Number) value).longValue()));
        } else {
            json.writeNumber(((Number) value).longValue());
        }
    }
}
