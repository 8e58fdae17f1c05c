#!/bin/sh
# An empty volume gets a database with the password of POSTGRES_PASSWORD, and the first scripts are run against a server
# that nobody else can reach; then, and every other time, it is served.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p -m 0700 "$PGDATA"
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    # shellcheck disable=SC2086 # several arguments in one variable
    initdb --pgdata="$PGDATA" --username=postgres --pwfile=/tmp/password ${POSTGRES_INITDB_ARGS:-} >/dev/null
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait start --options="-c listen_addresses='' -c unix_socket_directories=$PGHOST"
    for script in /docker-entrypoint-initdb.d/*.sh; do . "$script"; done
    pg_ctl --wait --mode=fast stop
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories="$PGHOST"
