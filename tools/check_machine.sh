#!/bin/sh
# Ends with one line that says what to install when Python or Java is missing or too old.
# Usage: check_machine.sh PYTHON
python=$1

stop() {
    echo "install: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    stop "'$python' not found: install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    stop "'$python' is $("$python" --version 2>&1): Python 3.10 or newer is needed: make PYTHON=/path/to/python3"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    stop "'$python' can't make virtual environments: install its venv module (Debian: apt-get install python3-venv)"

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
command -v "$java" >/dev/null 2>&1 ||
    stop "'$java' not found: install a Java runtime, version 17 (Debian: apt-get install openjdk-17-jre-headless)"
major=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
[ "${major:-0}" -ge 17 ] ||
    stop "'$java' is version ${major:-unknown}: Java 17 is needed (Debian: apt-get install openjdk-17-jre-headless)"
