package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/creelhq/creel/agent"
)

// AgentData returns the state directory of the agent that is meant: a hub's has its agent's in it.
func (c *Commands) AgentData() string {
	data := c.DataDir()
	if _, err := os.Stat(filepath.Join(data, "hub.json")); err == nil {
		return filepath.Join(data, "agent")
	}
	return data
}

// errNoAgent says that no agent was reached.
var errNoAgent = errors.New("is it running? --data names its state directory")

func noAgent(err error) bool { return errors.Is(err, errNoAgent) }

// do sends a request to the admin endpoint of the agent that is meant; in, if there is any, as JSON. An answer that is not
// 200 is an error with an exit code of its own.
func (c *Commands) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	socket := agent.AdminSocket(c.AgentData())
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if refused := (*url.Error)(nil); errors.As(err, &refused) {
		err = refused.Err // without the URL, which is nobody's business
	}
	if err != nil {
		return nil, Exit(ExitUnreachable, fmt.Errorf("reach the agent at %s: %w; %w", socket, err, errNoAgent))
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what there is of it will do
	code, known := map[int]int{http.StatusNotFound: ExitNotFound, http.StatusBadRequest: ExitUsage, http.StatusForbidden: ExitForbidden}[resp.StatusCode]
	if !known {
		code = ExitNo
	}
	return nil, Exit(code, errors.New(strings.TrimSpace(string(text))))
}

// Call asks the running agent that is meant, at its admin endpoint, and reads the answer from JSON into out. in, if there is
// any, goes as JSON. The error has an exit code; it is an fs.ErrNotExist if no agent is there at all.
func (c *Commands) Call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return Exit(ExitNo, fmt.Errorf("read what the agent answers: %w", err))
	}
	return nil
}

// Print writes v as format says: json, yaml, name (names, one a line), or table, which writes the table; so does wide, for
// those that show more then.
func (c *Commands) Print(format string, v any, names []string, table func(w *tabwriter.Writer)) error {
	switch format {
	case "table", "wide":
		w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
		table(w)
		return w.Flush()
	case "name":
		for _, n := range names {
			fmt.Fprintln(c.Out, n)
		}
		return nil
	case "json":
		enc := json.NewEncoder(c.Out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case "yaml":
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		var plain any // with the names that JSON has
		if err := yaml.Unmarshal(text, &plain); err != nil {
			return err
		}
		if text, err = yaml.Marshal(plain); err != nil {
			return err
		}
		_, err = c.Out.Write(text)
		return err
	}
	return fmt.Errorf("unknown output %q; say -o table, wide, json, yaml or name", format)
}
