package expr

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	"github.com/creelhq/creel"
)

// maxProgram is how many instructions a compiled regular expression may have.
const maxProgram = 5000

// pattern compiles a regular expression. RE2 needs time linear in the text, times at worst the size of the program.
func pattern(text string) (*regexp.Regexp, *syntax.Regexp, error) {
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, nil, fmt.Errorf("compile regular expression: %w", err)
	}
	tree = tree.Simplify()
	program, err := syntax.Compile(tree)
	if err != nil {
		return nil, nil, fmt.Errorf("compile regular expression: %w", err)
	}
	if len(program.Inst) > maxProgram {
		return nil, nil, fmt.Errorf("compile regular expression: it has %d instructions; at most %d are allowed", len(program.Inst), maxProgram)
	}
	re, err := regexp.Compile(text)
	return re, tree, err
}

// matcher returns what tells whether a string matches. Patterns that are only a string, perhaps at an end, need no
// regular expression.
func matcher(text string) (func(string) bool, error) {
	re, tree, err := pattern(text)
	if err != nil {
		return nil, err
	}
	parts := []*syntax.Regexp{tree}
	if tree.Op == syntax.OpConcat {
		parts = tree.Sub
	}
	begin := parts[0].Op == syntax.OpBeginText
	if begin {
		parts = parts[1:]
	}
	end := len(parts) > 0 && parts[len(parts)-1].Op == syntax.OpEndText
	if end {
		parts = parts[:len(parts)-1]
	}
	if len(parts) != 1 || parts[0].Op != syntax.OpLiteral || parts[0].Flags&syntax.FoldCase != 0 {
		return re.MatchString, nil
	}
	is := string(parts[0].Rune)
	if strings.ContainsRune(is, utf8.RuneError) { // which also matches a wrong byte
		return re.MatchString, nil
	}
	switch {
	case begin && end:
		return func(s string) bool { return s == is }, nil
	case begin:
		return func(s string) bool { return strings.HasPrefix(s, is) }, nil
	case end:
		return func(s string) bool { return strings.HasSuffix(s, is) }, nil
	}
	return func(s string) bool { return strings.Contains(s, is) }, nil
}

// extractor prepares the function extract.
func extractor(constant []creel.Value) (func(*Record, []creel.Value) creel.Value, error) {
	re, _, err := pattern(constant[0].Str())
	if err != nil {
		return nil, err
	}
	group := min(1, re.NumSubexp())
	if len(constant) > 1 {
		group = int(constant[1].Int())
		if name := constant[1]; name.Kind() == creel.ValueString {
			group = re.SubexpIndex(name.Str())
		}
	}
	if group < 0 || group > re.NumSubexp() {
		return nil, fmt.Errorf("the regular expression has no group %v", constant[1])
	}
	return func(_ *Record, a []creel.Value) creel.Value {
		s := a[0].Str()
		at := re.FindStringSubmatchIndex(s)
		if at == nil || at[2*group] < 0 {
			return creel.Value{}
		}
		return creel.String(s[at[2*group]:at[2*group+1]])
	}, nil
}
