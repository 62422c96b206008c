"""TLS, SASL/SCRAM and ACLs for the embedded Kafka of `kafka_broker`.

The JDK's keytool makes the certificates. Users and ACLs are added with Kafka's admin API through the broker's open
listener; whoever connects there is a superuser.
"""

from __future__ import annotations

import subprocess
import uuid
from typing import TYPE_CHECKING

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them without saying so
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

if TYPE_CHECKING:
    from pathlib import Path

# The key that it protects lives as long as a test, on this machine only.
STORE_PASSWORD = "embedded-store"  # noqa: S105
ADMIN_TIMEOUT_SECONDS = 10.0

LISTENER_PROPERTIES = """\
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PKCS12
ssl.keystore.location={keystore}
ssl.keystore.password={password}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


def make_stores(folder: Path) -> None:
    """Writes the server's `keystore.p12`, and `truststore.p12` for clients, both under STORE_PASSWORD."""
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate, trust = folder / "keystore.p12", folder / "certificate.pem", folder / "truststore.p12"
    store = ["-storetype", "PKCS12", "-storepass", STORE_PASSWORD, "-alias", "kafka"]
    names = ["-dname", "CN=embedded-kafka", "-ext", "SAN=IP:127.0.0.1,DNS:localhost"]
    run_keytool("-genkeypair", *store, "-keystore", str(key), "-keyalg", "EC", *names)
    run_keytool("-exportcert", "-rfc", *store, "-keystore", str(key), "-file", str(certificate))
    run_keytool("-importcert", "-noprompt", *store, "-keystore", str(trust), "-file", str(certificate))


def run_keytool(*arguments: str) -> None:
    """Runs the JDK's keytool. Raises RuntimeError with keytool's message when it fails."""
    done = subprocess.run(["keytool", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"keytool {arguments[0]}: {(done.stdout + done.stderr).strip()}")


def describe_client(truststore: Path, user: str, password: str) -> str:
    """The client properties for a user of the secured listener, one on each line."""
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    return (
        "security.protocol=SASL_SSL\n"
        "sasl.mechanism=SCRAM-SHA-512\n"
        f'sasl.jaas.config={login} username="{user}" password="{password}";\n'
        f"ssl.truststore.location={truststore}\n"
        f"ssl.truststore.password={STORE_PASSWORD}\n"
    )


def add_user(bootstrap_servers: str, user: str, password: str) -> None:
    """Adds a SCRAM user, or changes its password."""
    scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    upsertion = UserScramCredentialUpsertion(user, scram, password.encode())
    for done in admin.alter_user_scram_credentials([upsertion]).values():
        done.result(ADMIN_TIMEOUT_SECONDS)


def allow(bootstrap_servers: str, user: str, operation: str, resource: str, name: str, prefixed: bool = False) -> None:
    """Allows a user an operation on a resource, with the words of `kafka-acls`: `Read`, `topic`, its name.

    With `prefixed` the rule is for all resources whose names begin with `name`.
    """
    add_rule(bootstrap_servers, AclPermissionType.ALLOW, user, operation, resource, name, prefixed)


def deny(bootstrap_servers: str, user: str, operation: str, resource: str, name: str) -> None:
    """Denies a user an operation on a resource, even where another rule allows it."""
    add_rule(bootstrap_servers, AclPermissionType.DENY, user, operation, resource, name, prefixed=False)


def add_rule(
    bootstrap_servers: str,
    permission: AclPermissionType,
    user: str,
    operation: str,
    resource: str,
    name: str,
    prefixed: bool,
) -> None:
    """Adds an ACL."""
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    kind = ResourceType[resource.upper().replace("-", "_")]
    rule = AclBinding(kind, name, pattern, f"User:{user}", "*", AclOperation[operation.upper()], permission)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    for done in admin.create_acls([rule]).values():
        done.result(ADMIN_TIMEOUT_SECONDS)


def admit_job(bootstrap_servers: str, secure_bootstrap_servers: str, truststore: Path, topics: list[str]) -> Path:
    """Adds the user `job` with all rights on `topics`. Returns the file with its client properties."""
    password = uuid.uuid4().hex
    add_user(bootstrap_servers, "job", password)
    for topic in topics:
        allow(bootstrap_servers, "job", "All", "topic", topic)
    for resource in ("group", "transactional-id"):
        allow(bootstrap_servers, "job", "All", resource, "*")
    config = truststore.with_name("client.properties")
    config.touch(mode=0o600)
    client = describe_client(truststore, "job", password)
    config.write_text(f"bootstrap.servers={secure_bootstrap_servers}\n{client}")
    return config
