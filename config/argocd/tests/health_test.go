// Package argocd holds the tests of config/argocd: the interpreter that Argo CD uses runs health.lua, and the library that Flux uses reads
// the same objects.
package argocd

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	kstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "take what comes out as what is wanted: to be read in the diff")

// kinds are those of crds/.
func kinds(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("../../../crds/*.meshstor.io.yaml")
	if err != nil || len(found) == 0 {
		t.Fatalf("no definitions in crds/: %v", err)
	}
	var names []string
	for _, path := range found {
		var definition unstructured.Unstructured
		read(t, path, &definition.Object)
		name, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "kind")
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// captured are the objects of a kind as end-to-end runs had them: one of each combination of conditions.
func captured(t *testing.T, kind string) []*unstructured.Unstructured {
	t.Helper()
	directory := "objects"
	if other := os.Getenv("MESHSTOR_OBJECTS"); other != "" {
		directory = other
	}
	found, err := filepath.Glob(filepath.Join(directory, kind, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(found)
	var objects []*unstructured.Unstructured
	for _, path := range found {
		object := &unstructured.Unstructured{}
		read(t, path, &object.Object)
		// As a client of the API has them: whole numbers, where YAML's are floating.
		whole(object.Object)
		objects = append(objects, object)
	}
	return objects
}

func whole(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			value[key] = whole(inner)
		}
	case []any:
		for index, inner := range value {
			value[index] = whole(inner)
		}
	case float64:
		return int64(value)
	}
	return value
}

// toLua gives a value as Argo CD hands it to a script: every number is a floating one.
func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case string:
		return lua.LString(value)
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, inner := range value {
			table.Append(toLua(state, inner))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for key, inner := range value {
			table.RawSetString(key, toLua(state, inner))
		}
		return table
	}
	return lua.LNil
}

// health runs the script in a state with the libraries that Argo CD opens, and no other.
func health(script string, object *unstructured.Unstructured) (status, message string, err error) {
	if object.GetDeletionTimestamp() != nil {
		return "Progressing", "Pending deletion", nil // Argo CD's own word, before any script.
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		call := lua.P{Fn: state.NewFunction(open), Protect: true}
		if err := state.CallByParam(call, lua.LString(name)); err != nil {
			return "", "", err
		}
	}
	state.SetGlobal("obj", toLua(state, object.Object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	answer, isTable := state.Get(-1).(*lua.LTable)
	if !isTable {
		return "", "", fmt.Errorf("the script returns %s, and no table", state.Get(-1).Type())
	}
	return answer.RawGetString("status").String(), answer.RawGetString("message").String(), nil
}

// combination names what an object says of itself.
func combination(object *unstructured.Unstructured) string {
	var all []string
	if object.GetDeletionTimestamp() != nil {
		all = append(all, "deleted")
	}
	seen, found, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	switch {
	case !found:
		all = append(all, "not seen yet")
	case seen < object.GetGeneration():
		all = append(all, "changed since")
	}
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, condition := range conditions {
		c, _ := condition.(map[string]any)
		all = append(all, fmt.Sprintf("%v=%v/%v", c["type"], c["status"], c["reason"]))
	}
	sort.Strings(all)
	return strings.Join(all, " ")
}

// I7, as people see it: whatever an object says of itself, Argo CD and Flux understand it, and understand the same.
func TestEveryObjectThatRunsProduced(t *testing.T) {
	script, err := os.ReadFile("../health.lua")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds(t) {
		objects := captured(t, kind)
		if len(objects) == 0 {
			t.Errorf("no %s was captured: `make captured` after `make test-e2e`", kind)
		}
		var table bytes.Buffer
		for _, object := range objects {
			name := combination(object)
			status, message, err := health(string(script), object)
			if err != nil {
				t.Errorf("%s %s: %v", kind, name, err)
				continue
			}
			flux, err := kstatus.Compute(object)
			if err != nil {
				t.Errorf("%s %s: %v", kind, name, err)
				continue
			}
			if message == "" {
				t.Errorf("%s %s: %s without a message", kind, name, status)
			}
			if unseen(object) && !applied[kind] {
				continue // Nobody waits for what the operator makes: it has no status until it is looked at.
			}
			if !agree(status, flux.Status) {
				t.Errorf("%s %s: %s for Argo CD, %s for Flux", kind, name, status, flux.Status)
			}
			fmt.Fprintf(&table, "%s | %s | %s\n", name, status, flux.Status)
		}
		if os.Getenv("MESHSTOR_OBJECTS") == "" {
			golden(t, filepath.Join("expected", kind+".txt"), sorted(table.String()))
		}
		t.Logf("%s: %d combinations", kind, len(objects))
	}
}

// applied are the kinds that people write: they say from the start that nobody has looked at them yet.
var applied = map[string]bool{"MeshNode": true, "MeshVolume": true, "NodeDrain": true, "ReplicaSetPolicy": true}

func unseen(object *unstructured.Unstructured) bool {
	_, found, _ := unstructured.NestedMap(object.Object, "status")
	return !found
}

// agree says which words of the two mean the same. What is bad and may pass by itself has a word of its own in Argo CD alone.
func agree(argo string, flux kstatus.Status) bool {
	switch flux {
	case kstatus.CurrentStatus:
		return argo == "Healthy"
	case kstatus.FailedStatus:
		return argo == "Degraded"
	case kstatus.InProgressStatus:
		return argo == "Progressing" || argo == "Degraded"
	case kstatus.TerminatingStatus:
		return argo == "Progressing"
	}
	return false
}

func sorted(lines string) string {
	all := strings.SplitAfter(lines, "\n")
	sort.Strings(all)
	return strings.Join(all, "")
}

func golden(t *testing.T, path, now string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	wanted, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(wanted) != now {
		t.Errorf("%s says otherwise; `go test -update` takes this, to be read in the diff:\n%s", path, now)
	}
}
