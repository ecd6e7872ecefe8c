package argocd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/itchyny/gojq"
	"sigs.k8s.io/yaml"
)

// ignored is a file of ignore/, in the words of Argo CD's `ignoreResourceUpdates`.
type ignored struct {
	JSONPointers      []string `json:"jsonPointers"`
	JQPathExpressions []string `json:"jqPathExpressions"`
}

// without gives an object as Argo CD compares it with the one before.
func (i ignored) without(t *testing.T, object map[string]any) map[string]any {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	for _, pointer := range i.JSONPointers {
		patch, err := jsonpatch.DecodePatch([]byte(fmt.Sprintf(`[{"op": "remove", "path": %q}]`, pointer)))
		if err != nil {
			t.Fatalf("%s: %v", pointer, err)
		}
		// What is not there cannot be taken out, and need not be.
		if less, err := patch.Apply(text); err == nil {
			text = less
		}
	}
	var left any
	if err := json.Unmarshal(text, &left); err != nil {
		t.Fatal(err)
	}
	for _, expression := range i.JQPathExpressions {
		query, err := gojq.Parse(fmt.Sprintf("del(%s)", expression))
		if err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		value, some := query.Run(left).Next()
		if err, failed := value.(error); failed || !some {
			t.Fatalf("%s: %v", expression, err)
		}
		left = value
	}
	return left.(map[string]any)
}

func rules(t *testing.T, kind string) ignored {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "ignore", kind+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var found ignored
	if err := yaml.UnmarshalStrict(text, &found); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return found
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var found map[string]any
	if err := yaml.Unmarshal([]byte(text), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

// Numbers that change all the time make Argo CD reconcile nothing; whatever changes what people are told does.
func TestWhatIsIgnored(t *testing.T) {
	for _, row := range []struct{ kind, what, before, after string }{
		{"MeshNode", "", "{status: {heartbeat: a, bootId: x}}", "{status: {heartbeat: b, bootId: x}}"},
		{"MeshNode", "a reboot", "{status: {bootId: x}}", "{status: {bootId: y}}"},
		{"MeshNode", "", "{status: {drives: [{id: a, freeExtents: []}]}}", "{status: {drives: [{id: a, freeExtents: [{firstByte: 1}]}]}}"},
		{"MeshNode", "a drive", "{status: {drives: [{id: a}]}}", "{status: {drives: [{id: b}]}}"},
		{"MeshNode", "", "{status: {fabric: [{node: b, latencyMicroseconds: 64}]}}", "{status: {fabric: [{node: b, latencyMicroseconds: 128}]}}"},
		{"MeshAttachment", "", "{status: {array: {resync: {percent: 10}}}}", "{status: {array: {resync: {percent: 20}}}}"},
		{"MeshAttachment", "", "{status: {array: {members: [{leg: a, latencyEwmaNs: 1}]}}}", "{status: {array: {members: [{leg: a, latencyEwmaNs: 2}]}}}"},
		{"MeshAttachment", "a member", "{status: {array: {members: [{leg: a, state: InSync}]}}}", "{status: {array: {members: [{leg: a, state: Held}]}}}"},
		{"MeshAttachment", "the in-sync set", "{status: {term: {inSync: [a, b]}}}", "{status: {term: {inSync: [a]}}}"},
		{"MeshReplica", "", "{status: {zeroedPercent: 10}}", "{status: {zeroedPercent: 20}}"},
		{"MeshReplica", "a fence", "{status: {revokedBelow: 1}}", "{status: {revokedBelow: 2}}"},
		{"MeshVolume", "", "{status: {resync: 10%, copies: 1/2}}", "{status: {resync: 20%, copies: 1/2}}"},
		{"MeshVolume", "a copy", "{status: {copies: 1/2}}", "{status: {copies: 2/2}}"},
		{"MeshVolume", "", "{status: {conditions: [{type: Resynced, status: 'False', message: 10 %}]}}", "{status: {conditions: [{type: Resynced, status: 'False', message: 20 %}]}}"},
		{"MeshVolume", "the end of a copy", "{status: {conditions: [{type: Resynced, status: 'False'}]}}", "{status: {conditions: [{type: Resynced, status: 'True'}]}}"},
		{"MeshVolume", "what Ready says", "{status: {conditions: [{type: Ready, message: a}]}}", "{status: {conditions: [{type: Ready, message: b}]}}"},
		{"NodeDrain", "", "{status: {volumes: [{name: v, resync: {percent: 10}}]}}", "{status: {volumes: [{name: v, resync: {percent: 20}}]}}"},
		{"NodeDrain", "a volume", "{status: {volumes: [{name: v, state: Moving}]}}", "{status: {volumes: [{name: v, state: Blocked}]}}"},
	} {
		rules := rules(t, row.kind)
		before, after := rules.without(t, object(t, row.before)), rules.without(t, object(t, row.after))
		if same := reflect.DeepEqual(before, after); same != (row.what == "") {
			t.Errorf("%s: %s → %s: ignored: %v; it is about %q", row.kind, row.before, row.after, same, row.what)
		}
	}
}

// Every file names fields that there are, of a kind that there is.
func TestWhatIsIgnoredExists(t *testing.T) {
	files, err := filepath.Glob("../ignore/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		kind := strings.TrimSuffix(filepath.Base(file), ".yaml")
		var definition map[string]any
		read(t, "../../../crds/"+strings.ToLower(kind)+"s.meshstor.io.yaml", &definition)
		text, err := json.Marshal(definition)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range append(rules(t, kind).JSONPointers, rules(t, kind).JQPathExpressions...) {
			path, _, _ = strings.Cut(path, "|")
			for _, field := range strings.FieldsFunc(path, func(r rune) bool { return strings.ContainsRune("/.[]? ", r) }) {
				if !strings.Contains(string(text), fmt.Sprintf("%q:", field)) {
					t.Errorf("%s: %s: the definition knows no %s", file, path, field)
				}
			}
		}
	}
}
