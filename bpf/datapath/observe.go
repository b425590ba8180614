package datapath

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/ringbuf"
)

// Flow is an event: a new flow or a dropped packet, and with EventsPackets every packet.
type Flow struct {
	// Time is the time since boot.
	Time time.Duration
	// Source and Destination are those of the endpoints: after the translation of a published port, and before
	// masquerading.
	Source, Destination                 netip.AddrPort
	Protocol                            uint8
	SourceIdentity, DestinationIdentity uint32
	Interface                           int
	Length                              uint32
	Forwarded                           bool
	// Reason and Hook are those of the metrics' labels.
	Reason, Hook string
	Opened       bool
}

// Events reads flows from the kernel's ring buffer.
type Events struct {
	reader   *ringbuf.Reader
	names    names
	interval time.Duration
	deadline time.Time
}

// Events opens the ring buffer. Drops wake the reader, and new flows do not, so it reads at least once per interval.
// There must be only one reader, because each event is read once.
func (d *Datapath) Events(interval time.Duration) (*Events, error) {
	known, err := readNames()
	if err != nil {
		return nil, err
	}
	reader, err := ringbuf.NewReader(d.objects.Events)
	if err != nil {
		return nil, err
	}
	return &Events{reader: reader, names: known, interval: interval}, nil
}

// Next waits for the next event. It returns os.ErrDeadlineExceeded after the deadline and ringbuf.ErrClosed after
// Close.
func (e *Events) Next() (Flow, error) {
	record, err := e.read()
	if err != nil {
		return Flow{}, err
	}
	var event datapathEvent
	if err := decode(record.RawSample, &event); err != nil {
		return Flow{}, err
	}
	icmp := event.Tuple.Protocol == 1 || event.Tuple.Protocol == 58
	if icmp && event.Tuple.SourcePort != event.Tuple.DestinationPort {
		// The identifier of an ICMP echo is not a port.
		event.Tuple.SourcePort, event.Tuple.DestinationPort = 0, 0
	}
	return Flow{
		Time:           time.Duration(event.Time),
		Source:         netip.AddrPortFrom(fromAddress(event.Tuple.Source), fromPort(event.Tuple.SourcePort)),
		Destination:    netip.AddrPortFrom(fromAddress(event.Tuple.Destination), fromPort(event.Tuple.DestinationPort)),
		Protocol:       event.Tuple.Protocol,
		SourceIdentity: event.SourceIdentity, DestinationIdentity: event.DestinationIdentity,
		Interface: int(event.Interface),
		Length:    event.Length,
		Forwarded: datapathReason(event.Reason) < firstDrop,
		Reason:    e.names.reasons[event.Reason],
		Hook:      e.names.hooks[event.Hook],
		Opened:    event.Opened != 0,
	}, nil
}

func (e *Events) read() (ringbuf.Record, error) {
	for {
		next := time.Now().Add(e.interval)
		last := !e.deadline.IsZero() && e.deadline.Before(next)
		if last {
			next = e.deadline
		}
		e.reader.SetDeadline(next)
		record, err := e.reader.Read()
		if last || !errors.Is(err, os.ErrDeadlineExceeded) {
			return record, err
		}
	}
}

// SetDeadline sets the deadline of later calls of Next. The zero time means that there is none.
func (e *Events) SetDeadline(deadline time.Time) {
	e.deadline = deadline
}

// Close makes Next return in other goroutines.
func (e *Events) Close() error {
	return e.reader.Close()
}

// firstDrop is the first reason that means a drop.
const firstDrop = datapathReasonREASON_UNKNOWN_ENDPOINT

// names are the enumerators of the programs' own types in lower case, so that labels always match the programs.
type names struct {
	reasons, hooks []string
}

var readNames = sync.OnceValues(func() (names, error) {
	spec, err := loadDatapath()
	if err != nil {
		return names{}, err
	}
	reasons, err := enumerators(spec.Types, "reason", "REASON_")
	if err != nil {
		return names{}, err
	}
	hooks, err := enumerators(spec.Types, "hook", "HOOK_")
	return names{reasons, hooks}, err
})

func enumerators(types *btf.Spec, name, prefix string) ([]string, error) {
	var enum *btf.Enum
	if err := types.TypeByName(name, &enum); err != nil {
		return nil, err
	}
	var result []string
	for _, value := range enum.Values {
		if value.Name != prefix+"COUNT" {
			result = append(result, strings.ToLower(strings.TrimPrefix(value.Name, prefix)))
		}
	}
	return result, nil
}

// Count is the number of packets of a hook and reason since the maps were created.
type Count struct {
	Hook, Reason   string
	Packets, Bytes uint64
}

// Counts returns all counts that are not zero, sorted by hook and reason.
func (d *Datapath) Counts() ([]Count, error) {
	known, err := readNames()
	if err != nil {
		return nil, err
	}
	var counts []Count
	for hook, hookName := range known.hooks {
		for reason, reasonName := range known.reasons {
			var perCPU []datapathCount
			index := uint32(hook*int(datapathReasonREASON_COUNT) + reason)
			if err := d.objects.Counts.Lookup(index, &perCPU); err != nil {
				return nil, err
			}
			count := Count{Hook: hookName, Reason: reasonName}
			for _, each := range perCPU {
				count.Packets += each.Packets
				count.Bytes += each.Bytes
			}
			if count.Packets != 0 {
				counts = append(counts, count)
			}
		}
	}
	return counts, nil
}

// LostEvents returns how many events were lost because the ring buffer was full.
func (d *Datapath) LostEvents() (uint64, error) {
	var perCPU []uint64
	if err := d.objects.LostEvents.Lookup(uint32(0), &perCPU); err != nil {
		return 0, err
	}
	var sum uint64
	for _, count := range perCPU {
		sum += count
	}
	return sum, nil
}

// RunTime is that of a program since the kernel measures it (ebpf.EnableStats).
type RunTime struct {
	Runs uint64
	Time time.Duration
}

// RunTimes returns the run times of the programs by their names.
func (d *Datapath) RunTimes() (map[string]RunTime, error) {
	times := map[string]RunTime{}
	for _, hook := range allHooks {
		stats, err := d.program(hook).Stats()
		if err != nil {
			return nil, err
		}
		times[string(hook)] = RunTime{stats.RunCount, stats.Runtime}
	}
	return times, nil
}

// WriteMetrics writes the counts in Prometheus' text format. Hooks and reasons are the only labels, so their number is
// bounded.
func (d *Datapath) WriteMetrics(to io.Writer) error {
	counts, err := d.Counts()
	if err != nil {
		return err
	}
	lost, err := d.LostEvents()
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, metric := range []struct {
		name, help string
		value      func(Count) uint64
	}{
		{"palisade_datapath_packets_total", "Packets by the hook they met and how they ended.", func(c Count) uint64 { return c.Packets }},
		{"palisade_datapath_bytes_total", "Bytes of these packets.", func(c Count) uint64 { return c.Bytes }},
	} {
		fmt.Fprintf(&text, "# HELP %s %s\n# TYPE %s counter\n", metric.name, metric.help, metric.name)
		for _, count := range counts {
			fmt.Fprintf(&text, "%s{hook=%q,reason=%q} %d\n", metric.name, count.Hook, count.Reason, metric.value(count))
		}
	}
	const events = "palisade_datapath_lost_events_total"
	fmt.Fprintf(&text, "# HELP %s Events that found the ring full.\n# TYPE %s counter\n%s %d\n", events, events, events, lost)
	_, err = io.WriteString(to, text.String())
	return err
}

// Reasons returns every reason, those of forwarded packets first.
func Reasons() ([]string, error) {
	known, err := readNames()
	return slices.Clone(known.reasons), err
}

// IsDeadline reports whether Next has reached its deadline.
func IsDeadline(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded)
}
