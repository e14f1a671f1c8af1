package plugintest_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugin/plugintest"
)

type none struct{}

// broken returns the names of the rules that a plugin breaks.
func broken(p creel.Plugin, o plugintest.Options) (names []string) {
	for _, v := range plugintest.Check(p, o) {
		names = append(names, v.Rule)
	}
	return names
}

func TestGoodPluginsPass(t *testing.T) {
	plugintest.Run(t, creel.NewProcessor("pass", "Passes everything on.", func(none, creel.Host) (creel.Processor, error) {
		return creel.ProcessorFunc(func(_ context.Context, b *creel.Batch, next creel.Next) error {
			next.Send(b)
			return nil
		}), nil
	}), plugintest.Options{})
	plugintest.Run(t, creel.NewPolled("one", "Sends one record.", func(none, creel.Host) (creel.Collector, error) {
		return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
			return out.Send(ctx, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{}}}))
		}), nil
	}), plugintest.Options{})
	plugintest.Run(t, creel.NewExporter("take", "Takes all.", func(none, creel.Host) (creel.Exporter, error) {
		return creel.ExporterFunc(func(context.Context, []*creel.Batch) error { return nil }), nil
	}), plugintest.Options{})
}

// leaky starts a goroutine when it is opened, which never ends.
type leaky struct{}

func (leaky) Export(context.Context, []*creel.Batch) error { return nil }

// TestEveryRuleIsFound shows that the suite finds what it says it finds.
func TestEveryRuleIsFound(t *testing.T) {
	processor := func(f func(b *creel.Batch, next creel.Next) error) creel.Plugin {
		return creel.NewProcessor("bad", "Breaks a rule.", func(none, creel.Host) (creel.Processor, error) {
			return creel.ProcessorFunc(func(_ context.Context, b *creel.Batch, next creel.Next) error { return f(b, next) }), nil
		})
	}
	exporter := func(f func(ctx context.Context, bs []*creel.Batch) error) creel.Plugin {
		return creel.NewExporter("bad", "Breaks a rule.", func(none, creel.Host) (creel.Exporter, error) { return creel.ExporterFunc(f), nil })
	}
	collector := func(f func(ctx context.Context, out creel.Sink) error) creel.Plugin {
		return creel.NewCollector("bad", "Breaks a rule.", func(none, creel.Host) (creel.Collector, error) { return creel.CollectorFunc(f), nil })
	}
	record := func() *creel.Batch { return creel.NewLogs([]creel.Log{{Origin: &creel.Origin{}}}) }
	stop := make(chan struct{})
	defer close(stop)
	for _, c := range []struct {
		rule string
		p    creel.Plugin
		o    plugintest.Options
	}{
		{"options", exporter(func(context.Context, []*creel.Batch) error { return nil }), plugintest.Options{Config: "x: 1"}},
		{"doc", creel.NewExporter("bad", "no sentence", func(none, creel.Host) (creel.Exporter, error) { return leaky{}, nil }), plugintest.Options{}},
		{"name", creel.NewExporter("Bad-Name", "Breaks a rule.", func(none, creel.Host) (creel.Exporter, error) { return leaky{}, nil }), plugintest.Options{}},
		{"open", creel.NewExporter("bad", "Breaks a rule.", func(none, creel.Host) (creel.Exporter, error) {
			go func() { <-stop }()
			return leaky{}, nil
		}), plugintest.Options{}},
		{"open", creel.NewExporter("bad", "Breaks a rule.", func(none, creel.Host) (creel.Exporter, error) { return nil, errors.New("no") }), plugintest.Options{}},
		{"books", processor(func(b *creel.Batch, next creel.Next) error {
			creel.Settle(b, nil) // which is the framework's to do
			return nil
		}), plugintest.Options{}},
		{"siblings", processor(func(b *creel.Batch, next creel.Next) error {
			if b.Signal() == creel.Logs {
				b.Logs()[0].Body = creel.String("changed")
			}
			next.Send(b)
			return nil
		}), plugintest.Options{}},
		{"untouched", exporter(func(_ context.Context, bs []*creel.Batch) error {
			if bs[0].Signal() == creel.Metrics {
				bs[0].Metrics()[0].Time = 0
			}
			return nil
		}), plugintest.Options{}},
		{"untouched", exporter(func(context.Context, []*creel.Batch) error { return errors.New("no") }), plugintest.Options{}},
		{"collects", collector(func(ctx context.Context, out creel.Sink) error {
			if err := out.Send(ctx, creel.NewLogs(make([]creel.Log, 1))); err != nil { // without an origin
				return err
			}
			<-ctx.Done()
			return nil
		}), plugintest.Options{}},
		{"collects", collector(func(ctx context.Context, out creel.Sink) error {
			b := record()
			if err := out.Send(ctx, b); err != nil {
				return err
			}
			b.Len()
			_ = b.Logs() // after it was given away
			<-ctx.Done()
			return nil
		}), plugintest.Options{}},
		{"full", collector(func(ctx context.Context, out creel.Sink) error {
			for !out.TrySend(record()) {
				if ctx.Err() != nil {
					return errors.New("gives up with an error of its own")
				}
			}
			<-ctx.Done()
			return nil
		}), plugintest.Options{}},
		{"collects", collector(func(ctx context.Context, out creel.Sink) error { return nil }), plugintest.Options{}},
		{"rounds", creel.NewPolled("bad", "Breaks a rule.", func(none, creel.Host) (creel.Collector, error) {
			rounds := 0
			return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
				if rounds++; rounds > 1 {
					return errors.New("only once")
				}
				return out.Send(ctx, record())
			}), nil
		}), plugintest.Options{}},
	} {
		if got := broken(c.p, c.o); !slices.Contains(got, c.rule) {
			t.Errorf("a plugin that breaks %q is found to break %v", c.rule, got)
		}
	}
}
