"""The client of a schema registry: TLS, a user, what is wrong in one line, and no secret in it."""

from __future__ import annotations

import base64
import logging
import ssl
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from schemas import message, proto_file, serve_registry
from uniques.apps.count import main, parse_settings
from uniques.errors import JobError, UsageError
from uniques.kafka.properties import KafkaCluster, RegistryAddress, split_registry_properties
from uniques.kafka.registry import MAX_ABSENT, NEWEST_VERSIONS, SchemaRegistry

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "correct-horse"
EVENT = {"type": "record", "name": "E", "fields": [{"name": "uid", "type": "string"}]}


def client(url: str, kind: str = "avro", **properties: str) -> SchemaRegistry:
    named = tuple((name.replace("_", "."), value) for name, value in properties.items())
    return SchemaRegistry(RegistryAddress(url, named), kind)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """What a server on localhost speaks TLS with, and the file of its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    written, private = folder / "ca.pem", folder / "key.pem"
    written.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(written, private)
    return context, written


def test_a_registry_with_tls_and_a_user(certificate: tuple[ssl.SSLContext, Path]) -> None:
    context, ca = certificate
    with serve_registry(context, f"job:{SECRET}") as server:
        server.add(7, "in-value", EVENT)
        trusted = {"ssl_ca_location": str(ca)}
        known = client(server.url, **trusted, basic_auth_user_info=f"job:{SECRET}")
        assert known.look_up(7) is not None
        source = {"basic_auth_credentials_source": "USER_INFO"}
        assert client(server.url, **trusted, **source, basic_auth_user_info=f"job:{SECRET}").look_up(7) is not None
        with pytest.raises(JobError) as error:
            client(server.url, **trusted, basic_auth_user_info=f"job:{SECRET}!").look_up(7)
        assert str(error.value) == (
            f"the schema registry at {server.url} refused the login: check schema.registry.* in --kafka-config"
        )
        with pytest.raises(JobError, match="did not answer: is it running") as error:
            client(server.url, basic_auth_user_info=f"job:{SECRET}").look_up(7)
        assert "CERTIFICATE_VERIFY_FAILED" in str(error.value)
        assert SECRET not in str(error.value)


def test_a_schema_is_asked_for_once_and_the_newest_of_a_subject_at_the_start() -> None:
    with serve_registry() as server:
        for number in range(30):
            server.add(100 + number, "in-value", EVENT)
        registry = client(server.url)
        registry.look_up_subject("in-value")
        registry.look_up_subject("other-value")
        assert sorted(registry.known) == [100 + number for number in range(30 - NEWEST_VERSIONS, 30)]
        before = len(server.requests)
        assert registry.look_up(129) is not None
        assert registry.look_up(100) is registry.look_up(100)
        assert registry.look_up(5) is registry.look_up(5) is None
        assert len(server.requests) == before + 2


def test_a_schema_of_another_kind_and_one_whose_references_are_gone_count_as_absent() -> None:
    with serve_registry() as server:
        server.add(1, "p", proto_file("p.proto", message("P", ("uid", "string"))))
        server.add(2, "gone", EVENT, [{"name": "D", "subject": "nowhere", "version": 1}])
        registry = client(server.url)
        assert (registry.look_up(1), registry.look_up(2)) == (None, None)
        assert registry.absent == {1, 2}


def test_references_come_before_what_refers_to_them() -> None:
    leaf, middle = (proto_file(f"{name}.proto", message(name.title(), ("x", "string"))) for name in ("leaf", "middle"))
    with serve_registry() as server:
        server.add(1, "leaf", leaf)
        server.add(2, "middle", middle, [{"name": "a/leaf.proto", "subject": "leaf", "version": 1}])
        both = [
            {"name": "a/middle.proto", "subject": "middle", "version": 1},
            {"name": "a/leaf.proto", "subject": "leaf", "version": 1},
        ]
        server.add(3, "top", leaf, both)
        schema = client(server.url, "protobuf").look_up(3)
        assert schema is not None
        assert [name for name, _ in schema.files] == ["a/leaf.proto", "a/middle.proto", "uniques/event.proto"]
        assert base64.b64decode(schema.files[1][1]) == middle.SerializeToString()


def test_only_so_many_ids_are_asked_for_in_vain(caplog: pytest.LogCaptureFixture) -> None:
    with serve_registry() as server, caplog.at_level(logging.WARNING, "uniques"):
        registry = client(server.url)
        registry.met = set(range(1, MAX_ABSENT))
        registry.look_up_met()
        assert registry.asks
        assert registry.look_up(MAX_ABSENT) is None
        assert not registry.asks
        assert len(server.requests) == MAX_ABSENT
        server.add(MAX_ABSENT, "in-value", EVENT)
        registry.forget()  # as a job that starts does
        assert registry.look_up(MAX_ABSENT) is not None


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"basic_auth_user_info": SECRET}, "basic.auth.user.info must be in the form of {username}:{password}"),
        ({"sasl_password": SECRET}, "Unrecognized properties: sasl.password"),
        ({"ssl_ca_location": "/nowhere/ca.pem"}, "a file can't be used (No such file or directory)"),
    ],
)
def test_wrong_properties_get_one_line_without_their_values(properties: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        client("http://localhost:1", **properties)
    assert said in str(error.value)
    assert str(error.value).startswith("schema.registry.")
    assert SECRET not in str(error.value)
    assert SECRET not in repr(RegistryAddress("http://r", tuple(properties.items())))


def test_properties_of_the_registry_do_not_go_to_kafka(tmp_path: Path) -> None:
    config = tmp_path / "client.properties"
    config.write_text(f"schema.registry.basic.auth.user.info=job:{SECRET}\nsecurity.protocol=SSL\n")
    flags = ["--kafka-config", str(config), "--format", "avro", "--schema-registry", "http://registry:8081/"]
    settings = parse_settings(flags)
    assert settings.cluster.options({}) == {
        "kafka.bootstrap.servers": "localhost:9092",
        "kafka.security.protocol": "SSL",
    }
    assert settings.events.format.registry == RegistryAddress(
        "http://registry:8081", (("basic.auth.user.info", f"job:{SECRET}"),)
    )
    assert SECRET not in repr(settings)
    assert split_registry_properties({"a": "1", "schema.registry.b": "2"}) == ({"a": "1"}, {"b": "2"})
    assert KafkaCluster("x").registry_properties == {}


def test_without_the_client_the_flag_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry", None)
    with pytest.raises(SystemExit) as ended:
        main(["--format", "avro", "--schema-registry", "http://registry-of-this-test:8081"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("unique_users: error: --schema-registry needs the Python package confluent_kafka")
    assert "pip install 'confluent-kafka[schemaregistry]'" in said
    assert said.count("\n") == 1
