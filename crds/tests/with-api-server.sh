#!/usr/bin/env bash
# Starts etcd and a kube-apiserver of the lab on loopback, with throwaway keys, applies crds/ and config/, runs
# tests/api_server.rs and the tests of config/argocd against them, and stops both. Needs `e2e/lab/build.sh kube` to have run.
set -euo pipefail

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
eval "$("$repo/e2e/lab/build.sh" paths)"
for program in etcd kube-apiserver kubectl; do
	[[ -x $KUBE/$program ]] || {
		echo "test-api: $program is not built; run e2e/lab/build.sh kube" >&2
		exit 1
	}
done

dir=$(mktemp -d "${TMPDIR:-/tmp}/meshstor-api.XXXXXX")
pids=()
stop() {
	local rc=$?
	if ((${#pids[@]})); then
		# Not TERM: an API server whose etcd has gone does not end by itself, and nothing here is to be kept.
		kill -KILL "${pids[@]}" 2>/dev/null || true
		wait "${pids[@]}" 2>/dev/null || true
	fi
	if ((rc)); then echo "test-api: logs of the servers: $dir" >&2; else rm -rf -- "$dir"; fi
}
trap stop EXIT
trap 'exit 130' INT TERM

# Nothing answers there now; two runs that pick the same one fail loudly.
free_port() {
	local port
	while port=$(shuf -n 1 -i 20000-29999); do
		(: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
	done
	echo "$port"
}
etcd_port=$(free_port) peer_port=$(free_port) api_port=$(free_port)

token=$(openssl rand -hex 16)
echo "$token,admin,admin,system:masters" >"$dir/tokens"
openssl genrsa -out "$dir/service-accounts.key" 2048 2>/dev/null

"$KUBE/etcd" --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
	--listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
	--listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" \
	--initial-cluster "default=http://127.0.0.1:$peer_port" >"$dir/etcd.log" 2>&1 </dev/null &
pids+=($!)
"$KUBE/kube-apiserver" --etcd-servers "http://127.0.0.1:$etcd_port" --cert-dir "$dir/certs" \
	--bind-address 127.0.0.1 --secure-port "$api_port" --token-auth-file "$dir/tokens" --authorization-mode RBAC \
	--allow-privileged=true --service-account-issuer https://meshstor.invalid --service-account-key-file "$dir/service-accounts.key" \
	--service-account-signing-key-file "$dir/service-accounts.key" --service-cluster-ip-range 10.96.0.0/24 \
	>"$dir/kube-apiserver.log" 2>&1 </dev/null &
pids+=($!)

# It makes its own certificate, whose file carries the authority that signed it.
export MESHSTOR_TEST_KUBECONFIG=$dir/kubeconfig
cat >"$MESHSTOR_TEST_KUBECONFIG" <<-EOF
	apiVersion: v1
	kind: Config
	clusters:
	- {name: test, cluster: {server: "https://127.0.0.1:$api_port", certificate-authority: "$dir/certs/apiserver.crt"}}
	users:
	- {name: admin, user: {token: "$token"}}
	contexts:
	- {name: test, context: {cluster: test, user: admin}}
	current-context: test
EOF
export MESHSTOR_TEST_KUBECTL=$KUBE/kubectl
kubectl() { "$KUBE/kubectl" --kubeconfig "$MESHSTOR_TEST_KUBECONFIG" "$@"; }

for ((tenths = 0; ; tenths++)); do
	if kubectl get --raw /readyz >/dev/null 2>&1; then break; fi
	if ! kill -0 "${pids[@]}" 2>/dev/null || ((tenths > 600)); then
		tail -n 20 "$dir/etcd.log" "$dir/kube-apiserver.log" >&2
		echo "test-api: the API server did not become ready" >&2
		exit 1
	fi
	sleep 0.1
done

kubectl apply -k "$repo/config/default" >"$dir/apply.log"
# kubectl ends with an error on a CRD that has no conditions yet.
for ((tenths = 0; ; tenths++)); do
	if kubectl wait --for=condition=Established --timeout=30s crd -l app.kubernetes.io/part-of=meshstor >>"$dir/apply.log" 2>&1; then break; fi
	if ((tenths > 300)); then
		tail -n 5 "$dir/apply.log" >&2
		echo "test-api: the CRDs were not established" >&2
		exit 1
	fi
	sleep 0.1
done
cd -- "$repo"
rc=0
cargo test --locked -p meshstor-crds --features api-server --test api_server -- "$@" || rc=1
config/argocd/tests/run.sh || rc=1
exit "$rc"
