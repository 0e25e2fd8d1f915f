# shellcheck shell=bash disable=SC2034
# What every script of k8s/ shares: the settings of .env, kubectl with the right context and namespace,
# waiting with progress, and SQL on the coordinator. It changes nothing by itself.

K8S=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ROOT=$(cd "$K8S/.." && pwd)
# shellcheck source=scripts/say.sh
. "$ROOT/scripts/say.sh"

# What the caller's environment says wins over .env, so that `make deploy MODE=simple` does.
load_env() {
    local line name
    [[ -f $K8S/.env ]] || return 0
    while IFS= read -r line || [[ -n $line ]]; do
        [[ $line =~ ^[[:space:]]*(#.*)?$ ]] && continue
        [[ $line =~ ^([A-Z_]+)=(.*)$ ]] || fail "k8s/.env: '$line' is not NAME=value"
        name=${BASH_REMATCH[1]}
        [[ -n ${!name+set} ]] || declare -gx "$name=${BASH_REMATCH[2]}"
    done <"$K8S/.env"
}
load_env
: "${MODE:=ha}" "${KUBE_CONTEXT:=}" "${NAMESPACE:=citus}" "${CLUSTER_DOMAIN:=cluster.local}"
: "${REGISTRY:=}" "${TAG:=0.1.0-citus13.2-pg17}" "${BUILD_ARGS:=}" "${WORKERS:=3}" "${STORAGE_CLASS:=}" "${TIMEOUT:=600}"
: "${COORDINATOR_STORAGE:=10Gi}" "${WORKER_STORAGE:=10Gi}"
: "${CPU_REQUEST:=250m}" "${MEMORY_REQUEST:=512Mi}" "${MEMORY_LIMIT:=2Gi}"
[[ $MODE == ha || $MODE == simple ]] || fail "MODE is '$MODE'" "It is ha or simple: set it in k8s/.env or say make ... MODE=simple"
[[ $WORKERS =~ ^[0-9]+$ ]] || fail "WORKERS is '$WORKERS', not a number"
[[ $NAMESPACE =~ ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ ]] || fail "NAMESPACE is '$NAMESPACE', which Kubernetes takes for no name"

OPERATOR_NAMESPACE=postgres-operator
IMAGE_NAME=citus_fleet
[[ $MODE == simple ]] || IMAGE_NAME=citus_fleet-spilo
IMAGE_REPOSITORY=${REGISTRY:+$REGISTRY/}$IMAGE_NAME
IMAGE=$IMAGE_REPOSITORY:$TAG
# Both ways keep everything in the database that citus_fleet serves by default.
DATABASE=postgres

# The pods that are nodes. The jobs of the operator's logical backup inherit the label of their cluster.
NODES='citus-fleet/role in (coordinator,worker),application!=spilo-logical-backup'

lines() { printf '%s\n' "$@"; }

require() {
    local tool
    for tool; do
        command -v "$tool" >/dev/null || fail "the program $tool is not on the PATH" "k8s/README.md says what is needed."
    done
}

kube() { kubectl ${KUBE_CONTEXT:+--context "$KUBE_CONTEXT"} "$@"; }
k() { kube -n "$NAMESPACE" "$@"; }

require_cluster() {
    require kubectl openssl
    local why
    why=$(kube version --request-timeout=10s 2>&1) ||
        fail "no Kubernetes cluster answers${KUBE_CONTEXT:+ in the context $KUBE_CONTEXT}" "${why##*$'\n'}"
}

make_namespace() {
    kube get namespace "$NAMESPACE" >/dev/null 2>&1 || kube create namespace "$NAMESPACE" --save-config | sed 's/^/  /'
}

# wait_until TITLE COMMAND...: repeats the command until it succeeds; what it prints is the reason why not
# yet, shown when it changes and when time is up.
wait_until() {
    local title=$1 began=$SECONDS output said=
    shift
    while ! output=$("$@" 2>&1); do
        if [[ $output != "$said" ]]; then
            [[ -z $output ]] || say "  $title: ${output//$'\n'/; }"
            said=$output
        fi
        ((SECONDS - began < TIMEOUT)) || fail "$title: not after $TIMEOUT s" "${output:-no reason was given}" \
            "make status and make logs show more; TIMEOUT=1200 waits longer."
        sleep 2
    done
    say "  $title: done ($((SECONDS - began)) s)"
}

# The pod that is the coordinator's primary now.
coordinator_pod() {
    case $MODE in
    simple) say citus-coordinator-0 ;;
    ha) primary_of citus-coordinator ;;
    esac
}

# primary_of CLUSTER: the pod of the operator's cluster that leads.
primary_of() {
    local pod
    pod=$(k get pods -l "cluster-name=$1,spilo-role=master" -o name 2>/dev/null | head -n 1)
    [[ -n $pod ]] || { say "$1 has no primary at the moment"; return 1; }
    say "${pod#pod/}"
}

# delete_clusters NAME...: the operator's, until none of their pods runs. It stops a cluster's pods one after
# the other, and may miss that one has stopped; the others would run on for as long as it waits for that.
delete_clusters() {
    local clusters
    clusters="cluster-name in ($(IFS=, && say "$*"))"
    k delete postgresql "$@" | sed 's/^/  /'
    wait_until "the operator has given up the pods" none statefulsets "$clusters"
    k delete pods -l "$clusters" --ignore-not-found >/dev/null
}

# none KIND SELECTOR: succeeds when there are none.
none() {
    local left
    left=$(k get "$1" -l "$2" -o name)
    [[ -z $left ]] || { say "${left//$'\n'/, }"; return 1; }
}

# in_coordinator COMMAND...: runs a program beside the coordinator, with standard input.
in_coordinator() {
    local pod
    pod=$(coordinator_pod) || fail "$pod"
    k exec -i "$pod" -c postgres -- "$@"
}

# sql: runs the statements on standard input on the coordinator; prints bare values.
sql() { in_coordinator psql -XqAt -v ON_ERROR_STOP=1 -U postgres -d "$DATABASE"; }

# The workers that Kubernetes is asked to run, as far as it knows any.
workers_wanted() {
    case $MODE in
    simple) k get statefulset citus-worker -o jsonpath='{.spec.replicas}' 2>/dev/null || true ;;
    ha) k get postgresqls -l citus-fleet/role=worker -o name 2>/dev/null | wc -l ;;
    esac
}

# workers_active NUMBER: succeeds when this many workers are active and none of them is anything else.
workers_active() {
    local found
    found=$(sql <<<"SELECT pg_catalog.count(*) FILTER (WHERE state = 'active') || ' of $1 workers are active' ||
        COALESCE(pg_catalog.string_agg(', ' || nodename || ' is ' || state || ': ' || reason, '')
            FILTER (WHERE state NOT IN ('active', 'removed')), '') FROM fleet.workers" 2>&1) || { grep -v 'command terminated' <<<"$found"; return 1; }
    say "$found"
    [[ $found == "$1 of $1 workers are active" ]]
}
