"""Kafka client properties, as the jobs and Kafka's own tools take them, for the tools' client, librdkafka.

Its names are the same for most settings of security. What is a Java class or a Java key store there is a setting of its
own here: logins of the modules for PLAIN and SCRAM, and trust stores, which the JDK's `keytool` reads.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from uniques.kafka.properties import read_client_properties

if TYPE_CHECKING:
    from pathlib import Path

SAME_NAMES = (
    "bootstrap.servers",
    "client.id",
    "sasl.mechanism",
    "security.protocol",
    "ssl.cipher.suites",
    "ssl.key.password",
    "ssl.keystore.password",
)
LOGIN = re.compile(r"\.(?:Plain|Scram)LoginModule\s+required\b(.*)", re.DOTALL)
OPTION = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))')


class PropertiesError(Exception):
    """The file can't be used here; the message is one line, without any value of it."""


def read_properties(path: Path) -> dict[str, str]:
    """The settings of a client properties file for librdkafka. Raises PropertiesError, one line."""
    try:
        return translate(read_client_properties(path))
    except ValueError as error:
        raise PropertiesError(f"--kafka-config {path}: {error}") from error


def translate(properties: dict[str, str]) -> dict[str, str]:
    """Settings of Java's client as those of librdkafka: where Kafka is, and security; all others are left out.

    Raises ValueError, one line, for what librdkafka has nothing for.
    """
    settings = {name: properties[name] for name in SAME_NAMES if name in properties}
    if "ssl.endpoint.identification.algorithm" in properties:
        # Java takes an empty name for "do not check".
        settings["ssl.endpoint.identification.algorithm"] = (
            properties["ssl.endpoint.identification.algorithm"] or "none"
        )
    login = properties.get("sasl.jaas.config")
    if login is not None:
        settings |= translate_login(login)
    kind = properties.get("ssl.truststore.type", "JKS").upper()
    if "ssl.truststore.certificates" in properties:
        settings["ssl.ca.pem"] = properties["ssl.truststore.certificates"]
    elif kind == "PEM" and "ssl.truststore.location" in properties:
        settings["ssl.ca.location"] = properties["ssl.truststore.location"]
    elif "ssl.truststore.location" in properties:
        settings["ssl.ca.pem"] = read_trust_store(
            properties["ssl.truststore.location"], properties.get("ssl.truststore.password", "")
        )
    return settings | translate_key_store(properties)


def translate_login(login: str) -> dict[str, str]:
    """User and password of a login module."""
    match = LOGIN.search(login)
    options = {name: quoted or bare for name, quoted, bare in OPTION.findall(match[1])} if match else {}
    if not {"username", "password"} <= options.keys():
        raise ValueError(
            "sasl.jaas.config: the tools know the login modules for PLAIN and SCRAM, with their username and password"
        )
    return {
        "sasl.username": re.sub(r"\\(.)", r"\1", options["username"]),
        "sasl.password": re.sub(r"\\(.)", r"\1", options["password"]),
    }


def translate_key_store(properties: dict[str, str]) -> dict[str, str]:
    """The client's own key and certificate."""
    location = properties.get("ssl.keystore.location")
    if "ssl.keystore.key" in properties:
        return {
            "ssl.key.pem": properties["ssl.keystore.key"],
            "ssl.certificate.pem": properties.get("ssl.keystore.certificate.chain", ""),
        }
    if location is None:
        return {}
    kind = properties.get("ssl.keystore.type", "JKS").upper()
    if kind == "PEM":
        return {"ssl.key.location": location, "ssl.certificate.location": location}
    # Java reads PKCS12 under either name.
    return {"ssl.keystore.location": location}


def read_trust_store(path: str, password: str) -> str:
    """The certificates of a Java trust store, as PEM."""
    # The password is in the environment of the process, not in its command line, which others can read.
    environment = {**os.environ, "TRUST_STORE_PASSWORD": password}
    command = ["keytool", "-list", "-rfc", "-keystore", path]
    if password:
        command += ["-storepass:env", "TRUST_STORE_PASSWORD"]
    try:
        done = subprocess.run(command, input="\n", capture_output=True, text=True, env=environment, check=False)
    except OSError as error:
        raise ValueError("ssl.truststore.location: keytool, which is part of Java, is not there to read it") from error
    found = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", done.stdout, re.DOTALL)
    if not found:
        raise ValueError(
            "ssl.truststore.location: keytool reads no certificate in it; is ssl.truststore.password right?"
        )
    return "\n".join(found) + "\n"
