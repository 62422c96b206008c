package uniques;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.avro.Schema;
import org.apache.spark.sql.api.java.UDF1;
import org.apache.spark.sql.expressions.UserDefinedFunction;
import org.apache.spark.sql.functions;
import org.apache.spark.sql.types.DataTypes;

/**
 * Whether bytes are a value of an Avro schema, from the first to the last byte, with texts in UTF-8. Avro's own reader
 * makes room for a text before it looks whether there is one: a damaged length ends the JVM. Written for Janino.
 */
public final class AvroCheck implements UDF1<Object, Object> {
    private static final long serialVersionUID = 1L;

    /** Thrown where the bytes are none of the schema. */
    private static final class DamagedException extends RuntimeException {
        private static final long serialVersionUID = 1L;

        DamagedException() {
            super(null, null, false, false);
        }
    }

    /** What is left of the bytes. */
    private static final class Cursor {
        final byte[] bytes;
        int at = 0;

        Cursor(byte[] bytes) {
            this.bytes = bytes;
        }

        long number() {
            long bits = 0;
            for (int shift = 0; shift < 64; shift += 7) {
                if (this.at >= this.bytes.length) {
                    throw new DamagedException();
                }
                byte next = this.bytes[this.at++];
                bits |= (next & 0x7FL) << shift;
                if (next >= 0) {
                    return (bits >>> 1) ^ -(bits & 1);
                }
            }
            throw new DamagedException();
        }

        int length() {
            return this.below(this.bytes.length - this.at + 1L);
        }

        int below(long limit) {
            long number = this.number();
            if (number < 0 || number >= limit) {
                throw new DamagedException();
            }
            return (int) number;
        }

        void skip(int length) {
            if (length > this.bytes.length - this.at) {
                throw new DamagedException();
            }
            this.at += length;
        }
    }

    private final String json;
    private transient Schema schema;

    private AvroCheck(String json) {
        this.json = json;
    }

    /** The function, for the session, of a schema without references. */
    public static UserDefinedFunction create(String json) {
        return functions.udf(new AvroCheck(json), DataTypes.BooleanType).asNondeterministic();
    }

    @Override
    public Object call(Object payload) {
        if (payload == null) {
            return null;
        }
        if (this.schema == null) {
            this.schema = new Schema.Parser().parse(this.json);
        }
        Cursor cursor = new Cursor((byte[]) payload);
        try {
            this.walk(this.schema, cursor);
        } catch (DamagedException damaged) {
            return Boolean.FALSE;
        }
        return Boolean.valueOf(cursor.at == cursor.bytes.length);
    }

    private void walk(Schema type, Cursor cursor) {
        Schema.Type kind = type.getType();
        if (kind == Schema.Type.RECORD) {
            List fields = type.getFields();
            for (int i = 0; i < fields.size(); i++) {
                this.walk(((Schema.Field) fields.get(i)).schema(), cursor);
            }
        } else if (kind == Schema.Type.UNION) {
            List types = type.getTypes();
            this.walk((Schema) types.get(cursor.below(types.size())), cursor);
        } else if (kind == Schema.Type.ARRAY) {
            this.walkBlocks(type.getElementType(), false, cursor);
        } else if (kind == Schema.Type.MAP) {
            this.walkBlocks(type.getValueType(), true, cursor);
        } else if (kind == Schema.Type.STRING) {
            this.walkText(cursor);
        } else if (kind == Schema.Type.BYTES) {
            cursor.skip(cursor.length());
        } else if (kind == Schema.Type.FIXED) {
            cursor.skip(type.getFixedSize());
        } else if (kind == Schema.Type.ENUM) {
            cursor.below(type.getEnumSymbols().size());
        } else if (kind == Schema.Type.INT) {
            long number = cursor.number();
            if (number != (int) number) {
                throw new DamagedException();
            }
        } else if (kind == Schema.Type.LONG) {
            cursor.number();
        } else if (kind == Schema.Type.FLOAT) {
            cursor.skip(4);
        } else if (kind == Schema.Type.DOUBLE) {
            cursor.skip(8);
        } else if (kind == Schema.Type.BOOLEAN) {
            cursor.skip(1);
        }
    }

    private void walkBlocks(Schema type, boolean hasKeys, Cursor cursor) {
        while (true) {
            long items = cursor.number();
            if (items == 0) {
                return;
            }
            if (items < 0) {
                items = -items;
                cursor.length(); // of the block, in bytes
            }
            // Each item has a byte at least; Avro's reader makes room for all of them.
            if (items < 0 || items > cursor.bytes.length - cursor.at) {
                throw new DamagedException();
            }
            for (long i = 0; i < items; i++) {
                if (hasKeys) {
                    this.walkText(cursor);
                }
                this.walk(type, cursor);
            }
        }
    }

    private void walkText(Cursor cursor) {
        int length = cursor.length();
        int start = cursor.at;
        cursor.skip(length);
        for (int i = start; i < cursor.at; i++) {
            if (cursor.bytes[i] < 0) {
                try {
                    StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(cursor.bytes, start, length));
                } catch (CharacterCodingException invalid) {
                    throw new DamagedException();
                }
                return;
            }
        }
    }
}
