package argocd

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// argoCD is the release whose definition of Application the sample is checked against.
const argoCD = "github.com/argoproj/argo-cd/v3@v3.4.13"

// kubectl is that of the lab, as administrator of an API server that has config/default: crds/tests/with-api-server.sh says where.
func kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := tryKubectl(t, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
	return out
}

func tryKubectl(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	program, config := os.Getenv("MESHSTOR_TEST_KUBECTL"), os.Getenv("MESHSTOR_TEST_KUBECONFIG")
	if program == "" || config == "" {
		t.Fatal("there is no API server: `make test-api` starts one")
	}
	command := exec.Command(program, append([]string{"--kubeconfig", config}, args...)...)
	command.Stdin = strings.NewReader(stdin)
	out, err := command.CombinedOutput()
	return string(out), err
}

// established waits for a CRD. `kubectl wait` ends with an error on one that has no conditions yet.
func established(t *testing.T, crd string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, err := tryKubectl(t, "", "wait", "--for=condition=Established", "--timeout=20s", crd)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not established: %s", crd, out)
		}
	}
}

func documents(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(text)), 4096)
	var all []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); err != nil {
			if err.Error() == "EOF" {
				return all
			}
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			all = append(all, object)
		}
	}
}

func settings(t *testing.T, config string) map[string]string {
	t.Helper()
	var found unstructured.Unstructured
	if err := json.Unmarshal([]byte(config), &found.Object); err != nil {
		t.Fatal(err)
	}
	data, _, err := unstructured.NestedStringMap(found.Object, "data")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The settings become part of those that there are, and every kind has its health.
func TestTheSettingsOfArgoCD(t *testing.T) {
	kubectl(t, "", "create", "namespace", "argocd")
	defer kubectl(t, "", "delete", "namespace", "argocd", "--wait=false")
	kubectl(t, "", "--namespace=argocd", "create", "configmap", "argocd-cm", "--from-literal=url=https://argocd.example.com")
	for range 2 {
		kubectl(t, "", "apply", "--server-side", "--field-manager=meshstor", "-k", "..")
	}
	data := settings(t, kubectl(t, "", "--namespace=argocd", "get", "configmap", "argocd-cm", "-o", "json"))
	if data["url"] != "https://argocd.example.com" {
		t.Errorf("another's setting is %q now", data["url"])
	}
	script, err := os.ReadFile("../health.lua")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds(t) {
		if data["resource.customizations.health.meshstor.io_"+kind] != string(script) {
			t.Errorf("%s has no health", kind)
		}
		ignored, _ := os.ReadFile(filepath.Join("../ignore", kind+".yaml"))
		if data["resource.customizations.ignoreResourceUpdates.meshstor.io_"+kind] != string(ignored) {
			t.Errorf("%s: ignore/%s.yaml is not what the settings say", kind, kind)
		}
	}
}

// The Applications are such as Argo CD's own definition takes, with no field that it does not know.
func TestTheApplications(t *testing.T) {
	download := exec.Command("go", "mod", "download", "-json", argoCD)
	download.Env = append(os.Environ(), "GOFLAGS=-mod=mod")
	out, err := download.Output()
	if err != nil {
		t.Fatalf("download %s: %v\n%s", argoCD, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	definition := filepath.Join(module.Dir, "manifests/crds/application-crd.yaml")
	kubectl(t, "", "apply", "--server-side", "-f", definition)
	defer kubectl(t, "", "delete", "-f", definition)
	established(t, "crd/applications.argoproj.io")
	said := kubectl(t, "", "create", "--dry-run=server", "--validate=strict", "--namespace=default", "-f", sample(t))
	if strings.Count(said, "created (server dry run)") != 2 {
		t.Error(said)
	}
}

// sample is the Applications' file, in a namespace that there is.
func sample(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../application.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "application.yaml")
	if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("namespace: argocd"), []byte("namespace: default")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What others need comes in an earlier wave, and nothing that holds data goes because a file went.
func TestWavesAndWhatIsNeverPruned(t *testing.T) {
	waves := map[string]string{
		"CustomResourceDefinition": "-2", "Namespace": "-2",
		"ServiceAccount": "-1", "ClusterRole": "-1", "ClusterRoleBinding": "-1", "Role": "-1", "RoleBinding": "-1",
		"ValidatingAdmissionPolicy": "-1", "ValidatingAdmissionPolicyBinding": "-1",
		"PodTemplate": "", "Deployment": "", "DaemonSet": "",
		"ReplicaSetPolicy": "1", "MeshVolume": "2",
	}
	seen := map[string]bool{}
	for _, directory := range []string{"../../default", "../../samples"} {
		for _, object := range documents(t, kubectl(t, "", "kustomize", directory)) {
			kind, notes := object.GetKind(), object.GetAnnotations()
			wave, known := waves[kind]
			if !known {
				t.Errorf("%s %s: in which wave?", kind, object.GetName())
			}
			if notes["argocd.argoproj.io/sync-wave"] != wave {
				t.Errorf("%s %s is in wave %q", kind, object.GetName(), notes["argocd.argoproj.io/sync-wave"])
			}
			stays := kind == "CustomResourceDefinition" || kind == "MeshVolume"
			if stays && notes["argocd.argoproj.io/sync-options"] != "Prune=false,Delete=false" {
				t.Errorf("%s %s may go with its file", kind, object.GetName())
			}
			seen[kind] = true
		}
	}
	if len(seen) != len(waves) {
		t.Errorf("only %v were seen", seen)
	}
}
