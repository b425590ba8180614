package groups

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// layersInterval is the time between two checks of the layers' devices.
const layersInterval = 5 * time.Second

// watchLayers reports corrupted layers to the groups that run from them, until ctx ends. The kernel itself refuses to
// read a changed block: containers that read one get errors, and all others continue to run.
func (m *Manager) watchLayers(ctx context.Context) {
	if m.options.LayerDevices == nil {
		return
	}
	reported := map[string]bool{}
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
		reported = m.reportCorruption(answer.Msg.GetLayers(), reported)
	}
}

// reportCorruption adds an event to each group of a corrupted layer, unless it is among those reported before. It
// returns all that are reported and still corrupted; a layer whose device was closed meanwhile is reported again.
func (m *Manager) reportCorruption(layers []*agentv1.LayerDevice, before map[string]bool) map[string]bool {
	reported := map[string]bool{}
	for _, layer := range layers {
		if !layer.GetCorrupted() {
			continue
		}
		for _, g := range m.all() {
			for _, container := range g.containersOn(layer.GetRootHash()) {
				key := g.name + "/" + container + "/" + layer.GetRootHash()
				reported[key] = true
				if before[key] {
					continue
				}
				g.event(eventWarning, reasonLayerCorrupted, fmt.Sprintf("layer with root hash %s was changed on disk: reads of its changed blocks "+
					"fail (EIO); to fetch it again, remove the groups that use it", layer.GetRootHash()), container)
			}
		}
	}
	return reported
}

// containersOn returns the names of the containers that run from a layer.
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
