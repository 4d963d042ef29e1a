#!/bin/sh
# Writes PgBouncer's configuration from the environment and becomes PgBouncer. In use in the chart
# and in compose.yaml, with any image that has sh and pgbouncer.
set -eu
umask 077
folder="${PGBOUNCER_FOLDER:-/run/pgbouncer}"

# Inside quotes a quote is written twice.
quoted() { printf '%s' "$1" | sed 's/"/""/g'; }

cat > "$folder/userlist.txt" <<END
"$(quoted "$POSTGRES_USER")" "$(quoted "$POSTGRES_PASSWORD")"
END

# `*`: the runtime's database, and those of playbooks that go through here as the same user.
cat > "$folder/pgbouncer.ini" <<END
[databases]
* = host=$DB_HOST port=$DB_PORT

[pgbouncer]
listen_addr = ${LISTEN_ADDR:-*}
listen_port = $LISTEN_PORT
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $folder/userlist.txt
pool_mode = $POOL_MODE
max_client_conn = $MAX_CLIENT_CONN
default_pool_size = $DEFAULT_POOL_SIZE
min_pool_size = $MIN_POOL_SIZE
reserve_pool_size = $RESERVE_POOL_SIZE
reserve_pool_timeout = $RESERVE_POOL_TIMEOUT
max_db_connections = $MAX_DB_CONNECTIONS
server_lifetime = $SERVER_LIFETIME
server_idle_timeout = $SERVER_IDLE_TIMEOUT
server_login_retry = $SERVER_LOGIN_RETRY
stats_users = $POSTGRES_USER
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
END

exec pgbouncer "$folder/pgbouncer.ini"
