from __future__ import annotations

import pytest
from uniques.kafka import KafkaCluster, parse_client_properties


def test_properties_in_javas_format() -> None:
    text = (
        "# TLS\r\n"
        "security.protocol = SASL_SSL\r\n"
        "\r\n"
        "! also a comment\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n"
        '    username="job" password="a=b#c";\n'
        "ssl.keystore.location=\n"
    )
    assert parse_client_properties(text) == {
        "security.protocol": "SASL_SSL",
        "sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="job" password="a=b#c";',
        "ssl.keystore.location": "",
    }


@pytest.mark.parametrize("text", ["just words", "=value", "enable.auto.commit=true"])
def test_what_is_no_property_or_not_ours_to_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be name=value|is set by Spark"):
        parse_client_properties(text)


def test_a_cluster_does_not_print_its_secrets() -> None:
    cluster = KafkaCluster("localhost:9092", {"ssl.key.password": "hunter2"})
    assert "hunter2" not in repr(cluster)
