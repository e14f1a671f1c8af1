package parse

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

var rewrite = flag.Bool("rewrite", false, "write the reference page anew")

// TestReferenceIsCurrent compares the page about formats with the table that the formats are tested by.
func TestReferenceIsCurrent(t *testing.T) {
	var page bytes.Buffer
	fmt.Fprint(&page, "# What the formats of parse make of a line\n\n<!-- Written by `make docs` from the tests of the formats; do not edit. -->\n\n"+
		"The attributes, by the names of OpenTelemetry's semantic conventions where there are any, and what becomes time, severity\n"+
		"and body. What is not named stays as it was. A test runs all of it.\n")
	key := regexp.MustCompile(`([{,]?)"(\w+)":`)
	for _, c := range formats {
		options := strings.TrimSpace(strings.ReplaceAll(key.ReplaceAllString(c.options, "$1 $2: "), "{ ", "{"))
		line := c.line
		if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			line = strconv.Quote(line)
		}
		fmt.Fprintf(&page, "\n## %s\n\n`parse: {%s}` makes of\n\n```\n%s\n```\n\n| | |\n|---|---|\n", c.name, options, line)
		row := func(name, value string) {
			if value != "" {
				fmt.Fprintf(&page, "| %s | `%s` |\n", name, strings.ReplaceAll(value, "|", `\|`))
			}
		}
		row("time", c.time)
		row("severity", c.severity)
		row("severity text", c.text)
		row("body", c.body)
		fields := json.NewDecoder(strings.NewReader(c.attrs))
		must(t, second(fields.Token()))
		for fields.More() {
			name, err := fields.Token()
			must(t, err)
			var value json.RawMessage
			must(t, fields.Decode(&value))
			row(fmt.Sprintf("`%v`", name), string(value))
		}
	}
	file := filepath.Join("..", "..", "docs", "reference", "formats.md")
	if *rewrite {
		must(t, os.WriteFile(file, page.Bytes(), 0o644))
		return
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, page.Bytes()) {
		t.Errorf("%s is not current (%v): run make docs", file, err)
	}
}

func second(_ json.Token, err error) error { return err }
