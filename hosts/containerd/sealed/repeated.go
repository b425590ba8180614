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

// reference is how a mount refers to earlier mounts of the list, by their indices (containerd's mount manager).
var reference = regexp.MustCompile(`\{\{ *(overlay|mount|source|target) +(\d+)(?: +(\d+))? *\}\}`)

// withoutRepeated removes the repeated mounts of a layer that is mounted further above, because the kernel refuses an
// overlay with the same file system twice (ELOOP). The overlay shows the same files, because the upper mount of the
// layer hides the lower one. It renumbers references to the remaining mounts.
func withoutRepeated(mounts []mount.Mount, repeated map[int]bool) ([]mount.Mount, error) {
	var kept []mount.Mount
	// places maps old indices to new ones.
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

// singleLower returns the remaining lower layer of an overlay without an upper layer, if there is exactly one. The
// kernel refuses an overlay with one layer. Upstream also mounts an image with one layer without an overlay.
func singleLower(m mount.Mount, places map[int]int) (int, bool) {
	if !strings.HasSuffix(m.Type, "overlay") || slices.ContainsFunc(m.Options, func(option string) bool { return strings.HasPrefix(option, "upperdir=") }) {
		return 0, false
	}
	for _, option := range m.Options {
		match := reference.FindStringSubmatch(option)
		if match == nil || match[1] != "overlay" || !strings.HasPrefix(option, "lowerdir=") {
			continue
		}
		if kept := placesBetween(match[2], match[3], places); len(kept) == 1 {
			return kept[0], true
		}
	}
	return 0, false
}

// placesBetween returns the new indices of a range of old ones, in the order of the range.
func placesBetween(first, last string, places map[int]int) (kept []int) {
	from, _ := strconv.Atoi(first)
	to, _ := strconv.Atoi(last)
	for old := min(from, to); old <= max(from, to); old++ {
		if place, found := places[old]; found {
			kept = append(kept, place)
		}
	}
	if from > to {
		slices.Reverse(kept)
	}
	return kept
}

// renumbered replaces the indices in a source or an option by the new ones.
func renumbered(text string, places map[int]int) (string, error) {
	var failure error
	changed := reference.ReplaceAllStringFunc(text, func(whole string) string {
		match := reference.FindStringSubmatch(whole)
		last := match[3]
		if last == "" {
			last = match[2]
		}
		kept := placesBetween(match[2], last, places)
		if len(kept) == 0 {
			failure = fmt.Errorf("%s names a mount that is left out: %w", whole, errdefs.ErrInvalidArgument)
			return whole
		}
		if match[3] == "" {
			return fmt.Sprintf("{{ %s %d }}", match[1], kept[0])
		}
		return fmt.Sprintf("{{ %s %d %d }}", match[1], kept[0], kept[len(kept)-1])
	})
	return changed, failure
}
