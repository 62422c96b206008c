package uniques;

import java.util.HashSet;
import org.apache.spark.sql.api.java.UDF1;
import org.apache.spark.sql.expressions.UserDefinedFunction;
import org.apache.spark.sql.functions;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.util.CollectionAccumulator;

/** Tells the driver the ids that it is called with, and gives null. Written for Janino. */
public final class SchemaNotes implements UDF1<Object, Object> {
    private static final long serialVersionUID = 1L;

    private final CollectionAccumulator met;
    private transient HashSet told;

    private SchemaNotes(CollectionAccumulator met) {
        this.met = met;
    }

    /** The function, for the session. `met` is the driver's. */
    public static UserDefinedFunction create(CollectionAccumulator met) {
        return functions.udf(new SchemaNotes(met), DataTypes.StringType).asNondeterministic();
    }

    @Override
    public Object call(Object id) {
        if (this.told == null) {
            this.told = new HashSet();
        }
        if (id != null && this.told.add(id)) {
            this.met.add(id);
        }
        return null;
    }
}
