package api_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/creelhq/creel/api"
)

var rewrite = flag.Bool("rewrite", false, "write the reference files anew")

// TestReference: what is generated from the API's types is as it would be generated now.
func TestReference(t *testing.T) {
	doc, err := json.MarshalIndent(api.OpenAPI("development"), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"docs/reference/openapi.json": string(doc) + "\n",
		"ui/src/api/types.ts":         typeScript(t, doc),
	} {
		path := filepath.Join("..", filepath.FromSlash(file))
		if *rewrite {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(have) != want {
			t.Errorf("%s is not what the types say now; write it anew with make docs", file)
		}
	}
}

// schema is a JSON Schema, as far as the API uses it.
type schema struct {
	Ref                  string            `json:"$ref"`
	Type                 string            `json:"type"`
	Description          string            `json:"description"`
	Items                *schema           `json:"items"`
	AdditionalProperties *schema           `json:"additionalProperties"`
	Properties           map[string]schema `json:"properties"`
	Required             []string          `json:"required"`
}

// typeScript writes the document's schemas as interfaces.
func typeScript(t *testing.T, document []byte) string {
	var doc struct {
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("// The types of the hub's API. Generated from package api by `make docs`; not to be changed by hand.\n")
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
		s := doc.Components.Schemas[name]
		fmt.Fprintf(&b, "\nexport interface %s {\n", typeName(name))
		for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
			p := s.Properties[field]
			if p.Description != "" {
				fmt.Fprintf(&b, "  /** %s */\n", p.Description)
			}
			optional := "?"
			if slices.Contains(s.Required, field) {
				optional = ""
			}
			fmt.Fprintf(&b, "  %s%s: %s\n", field, optional, p.typeScript())
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// typeName keeps clear of what browsers have already.
func typeName(name string) string {
	if name == "Error" {
		return "ErrorBody"
	}
	return name
}

func (s *schema) typeScript() string {
	switch {
	case s.Ref != "":
		return typeName(s.Ref[strings.LastIndexByte(s.Ref, '/')+1:])
	case s.Type == "array":
		return s.Items.typeScript() + "[]"
	case s.Type == "object" && s.AdditionalProperties != nil:
		return "Record<string, " + s.AdditionalProperties.typeScript() + ">"
	case s.Type == "integer":
		return "number"
	case s.Type == "":
		return "unknown"
	}
	return s.Type
}
