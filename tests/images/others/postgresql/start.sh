#!/bin/sh
# Makes a database out of /init/password and /init/init.sql when there is none, then serves it.
set -eu
if [ ! -s /data/pg/ready ]; then
    rm -rf /data/pg
    initdb --pgdata=/data/pg --username=postgres --pwfile=/init/password --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C --no-sync >/dev/null
    # Nothing listens yet: the roles are there before the first client.
    postgres --single -D /data/pg postgres </init/init.sql >/dev/null
    echo "host all all all scram-sha-256" >>/data/pg/pg_hba.conf
    echo yes >/data/pg/ready
fi
exec postgres -D /data/pg -c listen_addresses='*' -c unix_socket_directories=/tmp -c max_connections=200 \
    -c shared_buffers=32MB -c fsync=off
