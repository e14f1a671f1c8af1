package parse

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

type layoutKind uint8

const (
	layoutWritten layoutKind = iota // by the user
	layoutAuto
	layoutRFC3339
	layoutUnix
)

// Layout is how a timestamp is written: see Timestamp.
type Layout struct {
	text   string
	kind   layoutKind
	units  int64  // to a second, of layoutUnix
	layout string // for package time, of layoutWritten
}

// UnmarshalText reads the name of a layout, a strptime layout if there is a % in it, or one of Go's.
func (l *Layout) UnmarshalText(text []byte) error {
	*l = Layout{text: string(text)}
	switch l.text {
	case "auto":
		l.kind = layoutAuto
	case "rfc3339":
		l.kind = layoutRFC3339
	case "unix":
		l.kind, l.units = layoutUnix, 1
	case "unix_ms":
		l.kind, l.units = layoutUnix, 1e3
	case "unix_us":
		l.kind, l.units = layoutUnix, 1e6
	case "unix_ns":
		l.kind, l.units = layoutUnix, 1e9
	case "%s":
		l.kind, l.units = layoutUnix, 1
	default:
		return l.written()
	}
	return nil
}

// MarshalText returns the text that l was made from.
func (l Layout) MarshalText() ([]byte, error) { return []byte(l.text), nil }

// TypeName is what help calls it.
func (Layout) TypeName() string { return "time layout" }

func (l *Layout) written() (err error) {
	l.layout = l.text
	if strings.Contains(l.text, "%") {
		if l.layout, err = fromStrptime(l.text); err != nil {
			return err
		}
	}
	// Two moments that differ in everything: a layout that shows no difference says nothing of the time.
	first := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	second := time.Date(2012, 11, 20, 17, 58, 49, 0, time.UTC)
	if first.Format(l.layout) == second.Format(l.layout) {
		return fmt.Errorf("read layout %q: it is no name (auto, rfc3339, unix, unix_ms, unix_us, unix_ns), and has no part of a time such as %%H or 15", l.text)
	}
	if _, err := time.Parse(l.layout, first.Format(l.layout)); err != nil {
		return fmt.Errorf("read layout %q: %w", l.text, err)
	}
	return nil
}

// fromStrptime translates a layout of strptime(3) to one of package time, which reads a fraction after seconds by itself.
func fromStrptime(text string) (string, error) {
	parts := map[byte]string{
		'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'j': "002", 'H': "15", 'I': "03", 'M': "04", 'S': "05",
		'b': "Jan", 'h': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'p': "PM", 'z': "Z0700", 'Z': "MST",
		'T': "15:04:05", 'R': "15:04", 'F': "2006-01-02", 'D': "01/02/06", 'n': "\n", 't': "\t", '%': "%",
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c >= '0' && c <= '9':
			return "", fmt.Errorf("read layout %q: a digit cannot stand beside %%", text)
		case (c == '.' || c == ',') && strings.HasPrefix(text[i+1:], "%f"), (c == '.' || c == ',') && strings.HasPrefix(text[i+1:], "%L"):
			i += 2
		case c != '%':
			out.WriteByte(c)
		case i+1 == len(text):
			return "", fmt.Errorf("read layout %q: nothing follows the last %%", text)
		default:
			i++
			part, ok := parts[text[i]]
			if !ok {
				return "", fmt.Errorf("read layout %q: %%%c is unknown; there are %%Y %%m %%d %%H %%M %%S %%f %%z and more of strptime's", text, text[i])
			}
			out.WriteString(part)
		}
	}
	return out.String(), nil
}

// Zone is a time zone: UTC, Local or a name of the IANA database.
type Zone struct {
	text     string
	location *time.Location // nil: UTC
}

// UnmarshalText looks the zone up.
func (z *Zone) UnmarshalText(text []byte) (err error) {
	*z = Zone{text: string(text)}
	if z.text == "" {
		return errors.New("a zone has a name, such as UTC, Local or Europe/Berlin")
	}
	location, err := time.LoadLocation(z.text)
	if err != nil {
		return fmt.Errorf("find time zone: %w", err)
	}
	if location != time.UTC {
		z.location = location
	}
	return nil
}

// MarshalText returns the zone's name.
func (z Zone) MarshalText() ([]byte, error) { return []byte(z.text), nil }

// TypeName is what help calls it.
func (Zone) TypeName() string { return "time zone" }
