package uniques;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.Serializable;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.nio.charset.StandardCharsets;
import java.time.LocalDateTime;
import java.time.ZoneId;
import java.time.ZoneOffset;
import java.util.HashMap;
import java.util.List;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.api.java.UDF1;
import org.apache.spark.sql.expressions.UserDefinedFunction;
import org.apache.spark.sql.functions;
import org.apache.spark.sql.types.DataType;

/**
 * The fields of an event in the bytes of a JSON text: `(time BIGINT or STRING, STRING, STRING, …)`, or null wherever it
 * is not certain that Spark's own parser would say the same. Written for Janino, which makes no bridge methods: hence
 * Object, not byte[] and Row.
 */
public final class EventDecoder implements UDF1<Object, Object> {
    private static final long serialVersionUID = 2L;
    private static final int MAX_DIGITS = 19;
    private static final int REPLACEMENT = 0xFFFD;
    private static final long MICROS = 1000000L;
    // The year 10000, in seconds.
    private static final long END_OF_TIME = 253402300800L;
    // Jackson interns field names for the life of the JVM; where keys are ids there is no end of them.
    private static final JsonFactory FACTORY = new JsonFactory().disable(JsonFactory.Feature.INTERN_FIELD_NAMES);
    private static final int AUTO = 0;
    private static final int UNIX = 1;
    private static final int ISO = 2;
    private static final int TEXT = 3;

    /** A name in a path: those below it, and what the value is read as, -1 for nothing. */
    private static final class Node implements Serializable {
        private static final long serialVersionUID = 1L;
        final HashMap children = new HashMap();
        int number;
        int field = -1;
        boolean isTime;
    }

    /** Thrown where only Spark's parser can say. */
    private static final class UncertainException extends RuntimeException {
        private static final long serialVersionUID = 1L;

        UncertainException() {
            super(null, null, false, false);
        }
    }

    private static final UncertainException UNCERTAIN = new UncertainException();

    private final Node root = new Node();
    private final int users;
    private final boolean incomplete;
    private final int timeFormat;
    private final long unitsASecond;
    private final ZoneId zone;
    private boolean hasTime;
    private int nodes = 1;
    private int values = 1;

    private EventDecoder(int users, boolean incomplete, int timeFormat, long unitsASecond, String zone) {
        this.users = users;
        this.incomplete = incomplete;
        this.timeFormat = timeFormat;
        this.unitsASecond = unitsASecond;
        this.zone = ZoneId.of(zone);
    }

    /**
     * The function, for the session. `time` is the path of the time, empty where the event has none; `fields` are the
     * paths of the other values, the first `users` of them those of users. An event has a time and a user, unless
     * `incomplete` ones are wanted too. `format`: auto, unix, iso or text, for which the time comes as it is.
     */
    public static UserDefinedFunction create(
            List time, List fields, int users, boolean incomplete, String format, long unitsASecond, String zone,
            DataType decoded) {
        int timeFormat = format.equals("auto") ? AUTO : format.equals("unix") ? UNIX : format.equals("iso") ? ISO : TEXT;
        EventDecoder decoder = new EventDecoder(users, incomplete, timeFormat, unitsASecond, zone);
        if (!time.isEmpty()) {
            decoder.add(time).isTime = true;
            decoder.hasTime = true;
        }
        for (int i = 0; i < fields.size(); i++) {
            decoder.add((List) fields.get(i)).field = decoder.values++;
        }
        // Spark calls a function that it takes for deterministic again for every filter above.
        return functions.udf(decoder, decoded).asNondeterministic();
    }

    private Node add(List path) {
        Node node = this.root;
        for (int i = 0; i < path.size(); i++) {
            Node child = (Node) node.children.get(path.get(i));
            if (child == null) {
                child = new Node();
                child.number = this.nodes++;
                node.children.put(path.get(i), child);
            }
            node = child;
        }
        return node;
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
                Object[] row = new Object[this.values];
                parser.nextToken();
                this.read(parser, this.root, row, new boolean[this.nodes]);
                return parser.nextToken() == null && (this.incomplete || this.isComplete(row))
                    ? RowFactory.create(row) : null;
            } finally {
                parser.close();
            }
        } catch (Exception e) { // whatever is wrong with it, Spark's parser says what
            return null;
        }
    }

    private boolean isComplete(Object[] row) {
        if (row[0] == null && this.hasTime) {
            return false;
        }
        for (int i = 1; i <= this.users; i++) {
            if (row[i] != null && !((String) row[i]).isEmpty()) {
                return true;
            }
        }
        return this.users == 0;
    }

    private void read(JsonParser parser, Node node, Object[] row, boolean[] seen) throws IOException {
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
            Node child = (Node) node.children.get(parser.currentName());
            JsonToken token = parser.nextToken();
            if (child == null) {
                parser.skipChildren();
                continue;
            }
            if (seen[child.number]) {
                throw UNCERTAIN;
            }
            seen[child.number] = true;
            if (token == JsonToken.VALUE_NULL) {
                continue;
            }
            boolean isObject = token == JsonToken.START_OBJECT;
            if (child.isTime) {
                row[0] = this.readTime(parser, token);
            }
            if (child.field >= 0) {
                row[child.field] = readText(parser, token);
            }
            if (isObject) {
                this.read(parser, child, row, seen);
            } else {
                parser.skipChildren();
            }
        }
        if (parser.currentToken() != JsonToken.END_OBJECT) {
            throw UNCERTAIN;
        }
    }

    /** The value as Spark makes a text of it. */
    private static String readText(JsonParser parser, JsonToken token) throws IOException {
        if (token == JsonToken.VALUE_STRING) {
            return parser.getText();
        }
        if (token == JsonToken.VALUE_NUMBER_INT) {
            String text = parser.getText();
            if (!text.equals("-0")) {
                return text;
            }
        } else if (token == JsonToken.VALUE_NUMBER_FLOAT) {
            double number = parser.getDoubleValue();
            if (!Double.isInfinite(number)) {
                return Double.toString(number);
            }
        } else if (token == JsonToken.VALUE_TRUE) {
            return "true";
        } else if (token == JsonToken.VALUE_FALSE) {
            return "false";
        }
        throw UNCERTAIN;
    }

    /** Microseconds since 1970, or the text where that is wanted. */
    private Object readTime(JsonParser parser, JsonToken token) throws IOException {
        if (this.timeFormat == TEXT) {
            return readText(parser, token);
        }
        if (token == JsonToken.VALUE_NUMBER_INT && this.timeFormat != ISO) {
            return Long.valueOf(this.scale(parser.getLongValue()));
        }
        String text = readText(parser, token);
        int length = text.length();
        boolean isWhole = length > 0 && length <= MAX_DIGITS;
        for (int i = 0; isWhole && i < length; i++) {
            isWhole = isDigit(text, i);
        }
        if (isWhole && this.timeFormat != ISO) {
            return Long.valueOf(this.scale(Long.parseLong(text)));
        }
        if (length > 4 && text.charAt(4) == '-' && this.timeFormat != UNIX) {
            return Long.valueOf(this.readIso(text));
        }
        if (isWhole || length == 0 || length > 40 || this.timeFormat == ISO) {
            throw UNCERTAIN;
        }
        for (int i = 0; i < length; i++) {
            char c = text.charAt(i);
            if (!isDigit(text, i) && c != '.' && c != 'E' && c != '-') {
                throw UNCERTAIN;
            }
        }
        // "1." and ".5" are numbers to Java only, and so are some exponents.
        boolean isText = token == JsonToken.VALUE_STRING;
        if (!isDigit(text, 0) || !isDigit(text, length - 1) || (isText && text.indexOf('E') >= 0)) {
            throw UNCERTAIN;
        }
        return Long.valueOf(this.scale(new BigDecimal(text).setScale(9, RoundingMode.HALF_UP)));
    }

    private static boolean isDigit(String text, int at) {
        return text.charAt(at) >= '0' && text.charAt(at) <= '9';
    }

    /** Units in a second of a unix time that is in seconds to the year 9999, else in milliseconds, and so on. */
    private long findUnit(long time) {
        if (time < 0) {
            throw UNCERTAIN;
        }
        long unit = this.unitsASecond;
        if (this.timeFormat == AUTO) {
            unit = 1;
            while (unit < 1000 * MICROS && time >= END_OF_TIME * unit) {
                unit *= 1000;
            }
        }
        if (unit <= MICROS && time >= END_OF_TIME * unit) {
            throw UNCERTAIN;
        }
        return unit;
    }

    private long scale(long time) {
        long unit = this.findUnit(time);
        return unit <= MICROS ? time * (MICROS / unit) : time / (unit / MICROS);
    }

    private long scale(BigDecimal time) {
        if (time.signum() < 0 || time.precision() > 27) {
            throw UNCERTAIN;
        }
        BigDecimal unit = BigDecimal.valueOf(this.findUnit(time.longValue()));
        return time.multiply(BigDecimal.valueOf(MICROS)).divide(unit, 0, RoundingMode.FLOOR).longValue();
    }

    /** As `event_time.ISO` has it. */
    private long readIso(String text) {
        int length = text.length();
        if (length < 16 || text.charAt(7) != '-' || "Tt ".indexOf(text.charAt(10)) < 0 || text.charAt(13) != ':') {
            throw UNCERTAIN;
        }
        int at = 16;
        int second = 0;
        int nanos = 0;
        if (at < length && text.charAt(at) == ':') {
            second = number(text, 17, 19);
            at = 19;
            if (at < length && text.charAt(at) == '.') {
                int from = ++at;
                while (at < length && isDigit(text, at)) {
                    at++;
                }
                if (at == from || at - from > 9) {
                    throw UNCERTAIN;
                }
                nanos = number(text, from, at);
                for (int digits = at - from; digits < 9; digits++) {
                    nanos *= 10;
                }
            }
        }
        LocalDateTime time = LocalDateTime.of(
            number(text, 0, 4), number(text, 5, 7), number(text, 8, 10), number(text, 11, 13), number(text, 14, 16),
            second, nanos);
        if (at < length && text.charAt(at) == ' ') {
            at++;
            if (at == length) {
                throw UNCERTAIN;
            }
        }
        ZoneId zone = at == length ? this.zone : readOffset(text, at, length);
        long seconds = time.atZone(zone).toEpochSecond();
        if (seconds < 0 || seconds >= END_OF_TIME) {
            throw UNCERTAIN;
        }
        return seconds * MICROS + nanos / 1000;
    }

    private static ZoneOffset readOffset(String text, int at, int length) {
        char sign = text.charAt(at);
        if ((sign == 'Z' || sign == 'z') && at + 1 == length) {
            return ZoneOffset.UTC;
        }
        int left = length - at;
        if ((sign != '+' && sign != '-') || (left != 3 && left != 5 && (left != 6 || text.charAt(at + 3) != ':'))) {
            throw UNCERTAIN;
        }
        int seconds = 3600 * number(text, at + 1, at + 3) + (left == 3 ? 0 : 60 * number(text, length - 2, length));
        return ZoneOffset.ofTotalSeconds(sign == '-' ? -seconds : seconds);
    }

    private static int number(String text, int from, int to) {
        int found = 0;
        for (int i = from; i < to; i++) {
            if (!isDigit(text, i)) {
                throw UNCERTAIN;
            }
            found = 10 * found + text.charAt(i) - '0';
        }
        return found;
    }
}
