package sealed

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
)

// reference is how a mount names earlier ones, by their places in the list (containerd's mount manager).
var reference = regexp.MustCompile(`\{\{ *(overlay|mount|source|target) +(\d+)(?: +(\d+))? *\}\}`)

// withoutRepeated leaves out mounts of a layer that a mount before them, which is above them, mounts already: the kernel takes
// no overlay with one file system twice (ELOOP). Nothing is lost: all that a layer says, it says at its upper place, too. What
// names mounts by their places names those that are left.
func withoutRepeated(mounts []mount.Mount, repeated map[int]bool) ([]mount.Mount, error) {
	var kept []mount.Mount
	// places are the new ones by the old ones.
	places := map[int]int{}
	for index, m := range mounts {
		if !repeated[index] {
			places[index] = len(kept)
			kept = append(kept, m)
		}
	}
	if len(kept) == len(mounts) {
		return mounts, nil
	}
	for index, m := range kept {
		if lower, single := singleLower(m, places); single {
			kept[index] = mount.Mount{Type: "format/bind", Source: fmt.Sprintf("{{ mount %d }}", lower), Options: []string{"ro", "rbind"}}
			continue
		}
		var err error
		if kept[index].Source, err = renumbered(m.Source, places); err != nil {
			return nil, err
		}
		kept[index].Options = slices.Clone(m.Options)
		for number, option := range m.Options {
			if kept[index].Options[number], err = renumbered(option, places); err != nil {
				return nil, err
			}
		}
	}
	return kept, nil
}

// singleLower tells whether a mount is an overlay without an upper layer that has one lower layer left, and which. The kernel
// takes no such overlay; the snapshotter below mounts an image of one layer by itself, too.
func singleLower(m mount.Mount, places map[int]int) (int, bool) {
	if !strings.HasSuffix(m.Type, "overlay") || slices.ContainsFunc(m.Options, func(option string) bool { return strings.HasPrefix(option, "upperdir=") }) {
		return 0, false
	}
	for _, option := range m.Options {
		match := reference.FindStringSubmatch(option)
		if match == nil || match[1] != "overlay" || !strings.HasPrefix(option, "lowerdir=") {
			continue
		}
		if left := placesBetween(match[2], match[3], places); len(left) == 1 {
			return left[0], true
		}
	}
	return 0, false
}

// placesBetween are the new places of a range of old ones, in the range's order.
func placesBetween(first, last string, places map[int]int) (left []int) {
	from, _ := strconv.Atoi(first)
	to, _ := strconv.Atoi(last)
	for old := min(from, to); old <= max(from, to); old++ {
		if place, found := places[old]; found {
			left = append(left, place)
		}
	}
	if from > to {
		slices.Reverse(left)
	}
	return left
}

// renumbered names mounts in a source or option by their new places.
func renumbered(text string, places map[int]int) (string, error) {
	var problem error
	changed := reference.ReplaceAllStringFunc(text, func(whole string) string {
		match := reference.FindStringSubmatch(whole)
		last := match[3]
		if last == "" {
			last = match[2]
		}
		left := placesBetween(match[2], last, places)
		if len(left) == 0 {
			problem = fmt.Errorf("%s names a mount that is left out: %w", whole, errdefs.ErrInvalidArgument)
			return whole
		}
		if match[3] == "" {
			return fmt.Sprintf("{{ %s %d }}", match[1], left[0])
		}
		return fmt.Sprintf("{{ %s %d %d }}", match[1], left[0], left[len(left)-1])
	})
	return changed, problem
}
