#!/bin/bash
# The first argument says what the container does:
#   unique-users FLAGS…   runs the job; SPARK_SUBMIT_ARGS may hold flags for spark-submit, such as "--driver-memory 4g"
#   rollup-users FLAGS…   runs the rollup job in the same way
#   driver | executor     is what Spark on Kubernetes starts in its pods
#   anything else         is run as a command
set -eu

case "${1:-}" in
unique-users | rollup-users)
    script=/opt/unique-users/jobs/${1//-/_}.py
    shift
    # shellcheck disable=SC2086 # several arguments in one variable
    exec spark-submit ${SPARK_SUBMIT_ARGS:-} "$script" "$@"
    ;;
driver)
    shift
    exec spark-submit --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
        --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" --deploy-mode client "$@"
    ;;
executor)
    # An executor has no web UI, and must find the pod's address.
    unset SPARK_LOCAL_IP
    # Spark passes spark.executor.extraJavaOptions as SPARK_JAVA_OPT_0, SPARK_JAVA_OPT_1, …
    options=()
    for ((number = 0; ; number++)); do
        name=SPARK_JAVA_OPT_$number
        [[ -v $name ]] || break
        options+=("${!name}")
    done
    exec java "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
        -cp "${SPARK_CLASSPATH:-}:${SPARK_EXTRA_CLASSPATH:-}:$SPARK_CONF_DIR:$SPARK_HOME/jars/*" \
        org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
        --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
        --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
        --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
*)
    exec "$@"
    ;;
esac
