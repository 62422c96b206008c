#!/bin/sh
# Runs the fast tests and those of the rollup job on every Spark of conf/spark-versions.txt. Each Spark has its own
# environment in .cache/spark-VERSION.
#   tools/test_matrix.sh [pytest arguments…]      SPARK="4.0.0 3.5.3" chooses versions; WORKERS=2 processes
set -eu
cd "$(dirname "$0")/.."
grep -v '^#' conf/spark-versions.txt >"${TMPDIR:-/tmp}/spark-versions.$$"
failed=
while read -r spark delta kafka_jar delta_jar avro_jar <&3; do
    case " ${SPARK:-$spark} " in *" $spark "*) ;; *) continue ;; esac
    environment=.cache/spark-$spark
    python=$environment/bin/python
    if [ ! -e "$environment/.installed" ] || [ pyproject.toml -nt "$environment/.installed" ]; then
        echo "test-matrix: installing Spark $spark and Delta $delta in $environment"
        [ -x "$python" ] || "${PYTHON:-python3}" -m venv "$environment"
        "$python" -m pip install --quiet --disable-pip-version-check --editable '.[bench,metrics,registry,test,tools]' \
            "pyspark==$spark" "delta-spark==$delta"
        "$python" tools/install_spark.py --packages "$kafka_jar" "$delta_jar" "$avro_jar"
        touch "$environment/.installed"
    fi
    echo "test-matrix: Spark $spark, Delta $delta"
    "$python" -m pytest -n "${WORKERS:-2}" --dist worksteal "$@" || failed="$failed $spark"
    # Each Spark has another Delta, so the rollup job is tested too. make test-rollups kills it twenty times.
    [ $# -gt 0 ] || "$python" -m pytest tests/rollups -k "not killed" || failed="$failed $spark (rollups)"
done 3<"${TMPDIR:-/tmp}/spark-versions.$$"
rm -f "${TMPDIR:-/tmp}/spark-versions.$$"
[ -z "$failed" ] || { echo "test-matrix: failed on Spark$failed" >&2; exit 1; }
