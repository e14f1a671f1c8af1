package control

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
)

// A Cursor is what a collector of a placed document has saved, see creel.State: whoever has the document next goes on from there.
type Cursor struct {
	Document  string `json:"document"`
	Epoch     int64  `json:"epoch"`     // in which it was saved
	Component string `json:"component"` // the collector's path
	Data      []byte `json:"data"`
}

// What is handed over at most: more stays where it is. In bytes.
const (
	MaxCursor  = 4 << 10  // of a collector
	MaxCursors = 16 << 10 // of a document
)

// EncodeCursors writes what collectors have saved, by their paths, as Tenure.Cursor has it; "" if that is nothing or too much.
func EncodeCursors(of map[string][]byte) string {
	size := 0
	for _, data := range of {
		size += len(data)
	}
	if size == 0 || size > MaxCursors {
		return ""
	}
	text, err := json.Marshal(of)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// DecodeCursors reads what EncodeCursors has written; what it has not is nothing.
func DecodeCursors(text string) (of map[string][]byte) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(data, &of) != nil {
		return nil
	}
	return of
}

// fresh returns the cursors that are other than those that were told last, and notes that they are told.
func (k *known) fresh(now []Cursor) (news []Cursor) {
	told := make(map[string]Cursor, len(now))
	for _, c := range now {
		if t, is := k.cursors[c.Component]; !is || t.Document != c.Document || t.Epoch != c.Epoch || !bytes.Equal(t.Data, c.Data) {
			news = append(news, c)
		}
		told[c.Component] = c
	}
	k.cursors = told
	return news
}
