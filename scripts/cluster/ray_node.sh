#!/usr/bin/env bash
# One machine's part of a Ray cluster that `rlpost … cluster.address=HOST:PORT` runs on.
#
#   ray_node.sh head [OPTIONS]               start a cluster here; prints its address
#   ray_node.sh worker HOST:PORT [OPTIONS]   join that cluster with this machine
#   ray_node.sh show                         the nodes that run here
#   ray_node.sh end                          end every node of yours that runs here, and whatever runs on it
#
#   --port N              of the head (6379)
#   --interface NAME      network to use, e.g. ib0: its address is announced, NCCL and gloo are bound to it
#   --ip ADDRESS          address to announce, where the interface alone does not say which
#   --cpus N, --gpus N    what Ray may use (all that is seen)
#   --memory-gb N         what actors may use; --object-store-gb N: for data and weights on their way (Ray's shares)
#   --worker-ports A-B    fixed ports for Ray's workers, for a firewall (any free ones)
#   --timeout N           seconds to be up, or for the head to answer (120)
#   --attached            stay in the foreground, end on SIGTERM or Ctrl-C (for systemd, containers)
#   --shielded            --attached, but only SIGUSR2 ends it: SLURM sends SIGTERM to everything at once, and Ray has to
#                         outlive the run that writes its checkpoint
#
# Environment: RLPOST_VENV (folder of the virtual environment: .venv of the repository), RLPOST_RAY (another command
# in place of `ray`, e.g. "apptainer exec image.sif ray"), RLPOST_NODE_ROOT (/tmp: short, Ray puts sockets below it),
# RAY_AUTH_MODE (token or disabled; token where a token is found, see README.md).
set -euo pipefail

root=${RLPOST_NODE_ROOT:-/tmp}
venv=${RLPOST_VENV:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.venv}
kill_after_s=20

say() { echo "ray_node: $*"; }
fail() {
  echo "ray_node: $*" >&2
  exit 1
}
refuse() {
  echo "ray_node: $*" >&2
  exit 2
}

# What cluster.address=local sets in the driver before it starts Ray (rlpost/actors/cluster.py). The nodes of a cluster
# that is joined are started here, so it has to be set here.
environment() {
  authentication
  export RAY_worker_niceness=0 # otherwise 15: on a shared machine imports then take five times as long
  export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0
  export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
  export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # an end is meant: rlpost moves the actors itself
  export PYTHONUNBUFFERED=1
  export RLPOST_NODE=$folder # everything that the node starts inherits this mark
  mkdir -p "$folder/tmp"
  export TMPDIR=$folder/tmp # vLLM leaves a file behind at every start
  if [ -n "$interface" ]; then
    export NCCL_SOCKET_IFNAME=$interface GLOO_SOCKET_IFNAME=$interface
  fi
}

# A cluster obeys whoever reaches its ports, unless it asks for a token. Ray makes ~/.ray/auth_token at its first local
# start, and from then on `ray start --head` asks for it, while workers and drivers do not send it by themselves.
authentication() {
  if [ -z "${RAY_AUTH_MODE:-}" ]; then
    if [ -n "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ] || [ -s "${HOME:-}/.ray/auth_token" ]; then
      export RAY_AUTH_MODE=token
    else
      export RAY_AUTH_MODE=disabled
    fi
  fi
}

# shellcheck disable=SC2016 # the inner shell expands them
answers() { timeout 5 bash -c 'exec 3<>"/dev/tcp/$1/$2"' _ "$1" "$2" 2>/dev/null; }
alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }
# Whether a node's process is there, and not another one that was given its number.
holds() { alive "$1" && grep -qzF "ray_node.sh" "/proc/$1/cmdline" 2>/dev/null; }

# Process ids of whatever carries a node's mark, the caller left out.
marked() {
  local file pid
  for file in /proc/[0-9]*/environ; do
    pid=${file//[^0-9]/}
    if [ "$pid" != "$$" ] && [ "$pid" != "$BASHPID" ] && grep -qzx "RLPOST_NODE=$1" "$file" 2>/dev/null; then
      echo "$pid"
    fi
  done
}

# Folders of nodes that were killed outright: their process is gone. A folder without a process id is just being made.
sweep() {
  local old pid
  for old in "$root"/rlpost-node-??????; do
    if ! [ -O "$old" ] || ! [ -f "$old/pid" ]; then continue; fi
    pid=$(cat "$old/pid")
    holds "$pid" || rm -rf "$old"
  done
}

stop_ray() {
  local end=$((SECONDS + kill_after_s)) pid
  alive "$ray_pid" && kill -TERM "$ray_pid" 2>/dev/null
  while alive "$ray_pid" && [ $SECONDS -lt $end ]; do sleep 0.2; done
  # Ray's own end missed something, or took too long
  for pid in $(marked "$folder"); do kill -KILL "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}

# Start the node and stay with it until it ends or is told to.
hold() {
  local status=0 stop='' end
  environment
  echo $$ >"$folder/pid"
  ray_pid=''
  trap 'stop=asked' USR2
  if [ -n "$shielded" ]; then
    trap 'say "SIGTERM: left to rlpost; SIGUSR2 ends this node"' TERM
  else
    trap 'stop=asked' TERM INT
  fi
  trap stop_ray EXIT
  "${ray[@]}" start --block --disable-usage-stats --log-color false --temp-dir "$folder" "${flags[@]}" \
    >"$folder/log" 2>&1 </dev/null &
  ray_pid=$!
  end=$((SECONDS + timeout_s))
  # printed once the node is registered
  until grep -q "Ray runtime started" "$folder/log" 2>/dev/null; do
    [ -z "$stop" ] || exit 143
    if ! alive "$ray_pid"; then
      tail -n 15 "$folder/log" >&2
      fail "$(hostname): the $role could not be started: Ray's last lines are above"
    fi
    if [ $SECONDS -ge $end ]; then
      tail -n 15 "$folder/log" >&2
      fail "$(hostname): the $role was not up within $timeout_s s (--timeout): Ray's last lines are above"
    fi
    sleep 0.2
  done
  if [ "$role" = head ]; then
    address=${ip:-$(sed -n 's/.*Local node IP: *//p' "$folder/log" | head -n 1)}:$port
  fi
  echo "$role $address" >"$folder/ready"
  say "$(hostname): $role of $address is up"
  while [ -z "$stop" ] && alive "$ray_pid"; do
    wait "$ray_pid" && status=0 || status=$?
  done
  if [ -z "$stop" ]; then
    tail -n 15 "$folder/log" >&2
    fail "$(hostname): the $role ended by itself with status $status: Ray's last lines are above"
  fi
  say "$(hostname): ending the $role"
}

# The same in the background; returns when the node is up.
detach() {
  local pid end=$((SECONDS + timeout_s + kill_after_s))
  : >"$folder/holder"
  exec 9<"$folder/holder" # the holder removes its folder when it fails; what it said stays readable
  setsid bash "${BASH_SOURCE[0]}" "${given[@]}" --attached </dev/null >"$folder/holder" 2>&1 &
  pid=$!
  trap 'kill -TERM "$pid" 2>/dev/null; exit 130' INT TERM
  until [ -f "$folder/ready" ]; do
    if ! alive "$pid" || [ $SECONDS -ge $end ]; then
      cat <&9 >&2
      kill -TERM "$pid" 2>/dev/null || true
      exit 1
    fi
    sleep 0.2
  done
  cat <&9
  read -r _ address <"$folder/ready"
  authentication
  if [ "$RAY_AUTH_MODE" = token ]; then
    say "it asks for a token: export RAY_AUTH_MODE=token, with the same token, on every machine that joins or trains"
  else
    say "it asks for no token: whoever reaches its ports can run programs on it (README.md, Who may use it)"
  fi
  say "join from another machine: ray_node.sh worker $address"
  say "see what would run where:  rlpost plan CONFIG cluster.address=$address"
  say "train:                     rlpost train CONFIG cluster.address=$address"
  say "end this node:             ray_node.sh end"
}

show() {
  local one found=''
  for one in "$root"/rlpost-node-??????; do
    if [ -O "$one" ] && [ -f "$one/ready" ] && holds "$(cat "$one/pid")"; then
      found=yes
      say "$(cat "$one/ready") (process $(cat "$one/pid"), log $one/log)"
    fi
  done
  [ -n "$found" ] || say "no node of yours runs here"
}

end_all() {
  local one pid end ended=0
  # workers first: a head that goes first takes its workers down with an error
  for one in $(grep -ls '^worker' "$root"/rlpost-node-??????/ready) "$root"/rlpost-node-??????; do
    if ! [ -O "$one" ] || ! [ -f "$one/pid" ]; then continue; fi
    pid=$(cat "$one/pid")
    if holds "$pid"; then
      kill -USR2 "$pid" 2>/dev/null || true
      end=$((SECONDS + kill_after_s + 10))
      while holds "$pid"; do
        [ $SECONDS -lt $end ] || fail "process $pid ($one) did not end within $((kill_after_s + 10)) s"
        sleep 0.2
      done
      ended=$((ended + 1))
    fi
  done
  sweep
  say "ended $ended of the nodes here"
}

role=${1:-help}
given=("$@")
shift || true
case $role in
  head) ;;
  worker)
    address=${1:-}
    [[ $address =~ ^[^:]+:[0-9]+$ ]] || refuse "worker: give the head's address as HOST:PORT, got '$address'"
    shift
    ;;
  show | end)
    [ $# -eq 0 ] || refuse "$role takes no arguments, got '$*'"
    if [ "$role" = show ]; then show; else end_all; fi
    exit 0
    ;;
  help | -h | --help)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *) refuse "'$role': head, worker, show or end" ;;
esac

port=6379 interface='' ip='' timeout_s=120 attached='' shielded=''
flags=()
while [ $# -gt 0 ]; do
  option=$1
  case $option in
    --attached) attached=yes ;;
    --shielded) attached=yes shielded=yes ;;
    --port | --interface | --ip | --cpus | --gpus | --memory-gb | --object-store-gb | --worker-ports | --timeout)
      [ $# -ge 2 ] || refuse "$option: a value is missing"
      value=$2
      shift
      case $option in
        --interface | --ip) ;;
        --worker-ports) [[ $value =~ ^[0-9]+-[0-9]+$ ]] || refuse "$option: two ports as 10002-10999, got '$value'" ;;
        *) [[ $value =~ ^[0-9]+$ ]] || refuse "$option: a whole number, got '$value'" ;;
      esac
      case $option in
        --port) port=$value ;;
        --interface) interface=$value ;;
        --ip) ip=$value ;;
        --cpus) flags+=(--num-cpus "$value") ;;
        --gpus) flags+=(--num-gpus "$value") ;;
        --memory-gb) flags+=(--memory $((value * 1024 ** 3))) ;;
        --object-store-gb) flags+=(--object-store-memory $((value * 1024 ** 3))) ;;
        --worker-ports) flags+=(--min-worker-port "${value%-*}" --max-worker-port "${value#*-}") ;;
        --timeout) timeout_s=$value ;;
      esac
      ;;
    *) refuse "'$option': no such option; see ray_node.sh help" ;;
  esac
  shift
done

if [ -n "${RLPOST_RAY:-}" ]; then
  read -ra ray <<<"$RLPOST_RAY"
elif [ -x "$venv/bin/ray" ]; then
  ray=("$venv/bin/ray")
else
  ray=(ray)
fi
command -v "${ray[0]}" >/dev/null ||
  refuse "no command '${ray[0]}' and no $venv/bin/ray; run scripts/setup, or set RLPOST_VENV or RLPOST_RAY"

if [ -n "$interface" ] && [ -z "$ip" ]; then
  ip=$(ip -4 -o addr show dev "$interface" 2>/dev/null | awk '{split($4, part, "/"); print part[1]; exit}') || true
  [ -n "$ip" ] || refuse "--interface $interface: no such network here, or none with an IPv4 address; see 'ip -4 addr'"
fi
[ -z "$ip" ] || flags+=(--node-ip-address "$ip")
if [ "$role" = head ]; then
  address=''
  flags+=(--head --port "$port" --include-dashboard false)
  if [ -z "${RLPOST_NODE:-}" ] && answers "${ip:-127.0.0.1}" "$port"; then
    refuse "--port $port: something answers there already (ray_node.sh show); end it, or give another --port"
  fi
else
  flags+=(--address "$address")
  host=${address%:*} head_port=${address##*:}
  if [ -z "${RLPOST_NODE:-}" ]; then
    deadline=$((SECONDS + timeout_s))
    say "waiting up to $timeout_s s for the head at $address"
    until answers "$host" "$head_port"; do
      [ $SECONDS -lt $deadline ] ||
        fail "nobody answered at $address within $timeout_s s; is the head up, and is the port open between the machines?"
      sleep 1
    done
  fi
fi

if [ -n "${RLPOST_NODE:-}" ]; then
  folder=$RLPOST_NODE # made by the call that detached this one
else
  sweep
  folder=$(mktemp -d "$root/rlpost-node-XXXXXX")
fi
if [ -n "$attached" ]; then
  hold
else
  RLPOST_NODE=$folder detach
fi
