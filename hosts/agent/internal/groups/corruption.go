package groups

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// layersInterval is how often the kernel is asked what it found in layers.
const layersInterval = 5 * time.Second

// watchLayers tells the groups whose layers are not what was signed any more, until ctx ends. The kernel has failed the reads
// already: containers that need a changed block see errors, all others go on.
func (m *Manager) watchLayers(ctx context.Context) {
	if m.options.LayerDevices == nil {
		return
	}
	told := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(layersInterval):
		}
		answer, err := m.options.LayerDevices.ListLayerDevices(ctx, connect.NewRequest(&agentv1.ListLayerDevicesRequest{}))
		if err != nil {
			if ctx.Err() == nil {
				m.options.Logger.Warn("devices of layers are not known", "error", err)
			}
			continue
		}
		told = m.reportCorruption(answer.Msg.GetLayers(), told)
	}
}

// reportCorruption makes an event in each group of a corrupted layer, once for as long as its device is open. It returns what
// was told, now and before.
func (m *Manager) reportCorruption(layers []*agentv1.LayerDevice, before map[string]bool) map[string]bool {
	told := map[string]bool{}
	for _, layer := range layers {
		if !layer.GetCorrupted() {
			continue
		}
		for _, g := range m.all() {
			for _, container := range g.containersOn(layer.GetRootHash()) {
				key := g.name + "/" + container + "/" + layer.GetRootHash()
				told[key] = true
				if before[key] {
					continue
				}
				g.event(eventWarning, reasonLayerCorrupted, fmt.Sprintf("layer with root hash %s was changed on disk: reads of its changed blocks "+
					"fail (EIO); to fetch it anew, remove the groups that use it", layer.GetRootHash()), container)
			}
		}
	}
	return told
}

// containersOn lists the containers that run from a layer.
func (g *group) containersOn(rootHash string) []string {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	var names []string
	for _, container := range g.status.GetContainers() {
		if slices.Contains(container.GetSealed(), rootHash) {
			names = append(names, container.GetName())
		}
	}
	return names
}
