package uniques;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.api.java.UDF1;
import org.apache.spark.sql.expressions.UserDefinedFunction;
import org.apache.spark.sql.functions;
import org.apache.spark.sql.types.DataType;

/**
 * The event in the bytes of a JSON text: `(ts BIGINT, uid STRING)`, or null wherever it is not certain that Spark's own
 * parser would say the same. Written for Janino, which makes no bridge methods: hence Object, not byte[] and Row.
 */
public final class EventDecoder implements UDF1<Object, Object> {
    private static final long serialVersionUID = 1L;
    private static final int MAX_DIGITS = 19;
    private static final int REPLACEMENT = 0xFFFD;
    // Jackson interns field names for the life of the JVM; where keys are ids there is no end of them.
    private static final JsonFactory FACTORY = new JsonFactory().disable(JsonFactory.Feature.INTERN_FIELD_NAMES);

    private final long largestTs;

    private EventDecoder(long largestTs) {
        this.largestTs = largestTs;
    }

    /** The function, for the session; `largestTs`: the largest `ts` that is a time, in the unit of the events. */
    public static UserDefinedFunction create(long largestTs, DataType decoded) {
        // Spark calls a function that it takes for deterministic again for every filter above.
        return functions.udf(new EventDecoder(largestTs), decoded).asNondeterministic();
    }

    @Override
    public Object call(Object record) {
        byte[] value = (byte[]) record;
        // Jackson tells UTF-16 and UTF-32 by zeros in the first four bytes; to Spark every text is UTF-8.
        if (value == null || value.length < 2 || value[0] != '{' || value[1] == 0) {
            return null;
        }
        // Jackson takes some bytes that are no UTF-8.
        if (new String(value, StandardCharsets.UTF_8).indexOf(REPLACEMENT) >= 0) {
            return null;
        }
        try {
            JsonParser parser = FACTORY.createParser(value);
            try {
                return this.read(parser);
            } finally {
                parser.close();
            }
        } catch (Exception e) { // whatever is wrong with it, Spark's parser says what
            return null;
        }
    }

    private Object read(JsonParser parser) throws IOException {
        long ts = -1;
        String uid = "";
        parser.nextToken();
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
            String name = parser.currentName();
            JsonToken token = parser.nextToken();
            if (name.equals("ts")) {
                if (ts >= 0) {
                    return null;
                }
                ts = readTime(parser, token);
                if (ts < 0 || ts > this.largestTs) {
                    return null;
                }
            } else if (name.equals("uid")) {
                if (token != JsonToken.VALUE_STRING || !uid.isEmpty()) {
                    return null;
                }
                uid = parser.getText();
            } else {
                parser.skipChildren();
            }
        }
        if (ts < 0 || uid.isEmpty() || parser.nextToken() != null) {
            return null;
        }
        return RowFactory.create(new Object[] {Long.valueOf(ts), uid});
    }

    /** The number, or the number that a string of digits stands for; -1 or an exception for all else. */
    private static long readTime(JsonParser parser, JsonToken token) throws IOException {
        if (token == JsonToken.VALUE_NUMBER_INT) {
            return parser.getLongValue();
        }
        String text = token == JsonToken.VALUE_STRING ? parser.getText() : "";
        if (text.isEmpty() || text.length() > MAX_DIGITS) {
            return -1;
        }
        for (int i = 0; i < text.length(); i++) {
            if (text.charAt(i) < '0' || text.charAt(i) > '9') {
                return -1;
            }
        }
        return Long.parseLong(text);
    }
}
