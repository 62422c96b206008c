"""Client properties of the job, for the tools' client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from client_properties import PropertiesError, read_properties, translate

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


@pytest.mark.parametrize(
    ("properties", "settings"),
    [
        ({"security.protocol": "SSL", "fetch.max.bytes": "1"}, {"security.protocol": "SSL"}),
        (
            {"sasl.mechanism": "PLAIN", "sasl.jaas.config": f'{PLAIN} username="a b" password="x;\\"y\\\\";'},
            {"sasl.mechanism": "PLAIN", "sasl.username": "a b", "sasl.password": 'x;"y\\'},
        ),
        (
            {"sasl.jaas.config": f"{PLAIN}\n  username=a\n  password=b=c;"},
            {"sasl.username": "a", "sasl.password": "b=c"},
        ),
        ({"ssl.endpoint.identification.algorithm": ""}, {"ssl.endpoint.identification.algorithm": "none"}),
        ({"ssl.truststore.type": "PEM", "ssl.truststore.location": "ca.pem"}, {"ssl.ca.location": "ca.pem"}),
        ({"ssl.truststore.type": "PEM", "ssl.truststore.certificates": "C"}, {"ssl.ca.pem": "C"}),
        (
            {"ssl.keystore.type": "PEM", "ssl.keystore.location": "me.pem", "ssl.key.password": "p"},
            {"ssl.key.location": "me.pem", "ssl.certificate.location": "me.pem", "ssl.key.password": "p"},
        ),
        (
            {"ssl.keystore.key": "K", "ssl.keystore.certificate.chain": "C"},
            {"ssl.key.pem": "K", "ssl.certificate.pem": "C"},
        ),
        (
            {"ssl.keystore.location": "me.p12", "ssl.keystore.password": "p"},
            {"ssl.keystore.location": "me.p12", "ssl.keystore.password": "p"},
        ),
    ],
)
def test_settings_of_javas_client_become_those_of_the_tools(
    properties: dict[str, str], settings: dict[str, str]
) -> None:
    assert translate(properties) == settings


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('sasl.jaas.config=com.example.OAuthModule required secret="s3cret";\n', "login modules for PLAIN and SCRAM"),
        ("ssl.truststore.location=nowhere.p12\nssl.truststore.password=s3cret\n", "ssl.truststore.location: keytool"),
        ("s3cret\n", "line 1 must be name=value"),
        (None, "can't be read"),
    ],
)
def test_what_can_not_be_used_gets_one_line_without_a_secret(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "client.properties"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PropertiesError) as error:
        read_properties(path)
    message = str(error.value)
    assert message.startswith(f"--kafka-config {path}: ")
    assert says in message
    assert "\n" not in message
    assert "s3cret" not in message
