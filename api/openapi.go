package api

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"time"
)

var pathParameter = regexp.MustCompile(`\{(\w+)\}`)

// OpenAPI returns the API's description (OpenAPI 3.1), generated from Operations and the types.
func OpenAPI(version string) map[string]any {
	schemas := map[string]any{}
	paths := map[string]any{}
	for _, o := range Operations() {
		path, _ := paths[o.Path].(map[string]any)
		if path == nil {
			path = map[string]any{}
			paths[o.Path] = path
		}
		path[strings.ToLower(o.Method)] = describe(o, schemas)
	}
	schemaOf(reflect.TypeFor[Error](), schemas)
	return map[string]any{
		"openapi":    "3.1.0",
		"info":       map[string]any{"title": "creel hub", "version": version, "description": "The API of a creel hub. Requests carry a token as a bearer token, or what it was changed for by login: a JWT, or the session cookie of the web UI."},
		"servers":    []any{map[string]any{"url": Prefix}},
		"security":   []any{map[string]any{"token": []any{}}},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas, "securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer"}}},
	}
}

func describe(o Operation, schemas map[string]any) map[string]any {
	list := []any{}
	for _, m := range pathParameter.FindAllStringSubmatch(o.Path, -1) {
		list = append(list, map[string]any{"name": m[1], "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
	}
	if o.Request != nil {
		for _, p := range parameters(reflect.TypeOf(o.Request)) {
			list = append(list, map[string]any{"name": p.name, "in": "query", "description": p.doc, "schema": schemaOf(p.kind, schemas)})
		}
	}
	kind := "application/json"
	if o.Stream {
		kind = "text/event-stream"
	}
	content := func(kind string, t reflect.Type) map[string]any {
		return map[string]any{kind: map[string]any{"schema": schemaOf(t, schemas)}}
	}
	responses := map[string]any{"default": map[string]any{"description": "What went wrong.", "content": content("application/json", reflect.TypeFor[Error]())}}
	if o.Response == nil {
		responses["204"] = map[string]any{"description": "Done."}
	} else {
		responses["200"] = map[string]any{"description": "The answer.", "content": content(kind, reflect.TypeOf(o.Response))}
	}
	d := map[string]any{"operationId": o.ID, "summary": o.Doc, "parameters": list, "responses": responses}
	if o.Role == "" {
		d["security"] = []any{}
	} else {
		d["description"] = "For whoever has the role " + string(o.Role) + "."
	}
	if o.Body != nil {
		d["requestBody"] = map[string]any{"required": true, "content": content("application/json", reflect.TypeOf(o.Body))}
	}
	return d
}

// schemaOf returns the JSON Schema of a type; named structs go into schemas and are referred to.
func schemaOf(t reflect.Type, schemas map[string]any) map[string]any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), schemas)
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer", "format": "int64"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), schemas)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), schemas)}
	case reflect.Struct:
		name := t.Name()
		if strings.HasSuffix(t.PkgPath(), "/report") {
			name = "Report" + name
		}
		if _, done := schemas[name]; !done {
			schema := map[string]any{"type": "object"}
			schemas[name] = schema // before its fields: they may refer to it
			properties, required := map[string]any{}, []any{}
			fields(t, schemas, properties, &required)
			schema["properties"], schema["required"] = properties, required
		}
		return map[string]any{"$ref": "#/components/schemas/" + name}
	}
	panic("BUG: the API cannot carry a " + t.String())
}

func fields(t reflect.Type, schemas, properties map[string]any, required *[]any) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			fields(f.Type, schemas, properties, required)
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		schema := schemaOf(f.Type, schemas)
		if doc := f.Tag.Get("doc"); doc != "" {
			schema["description"] = doc
		}
		properties[name] = schema
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}
