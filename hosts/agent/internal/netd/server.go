package netd

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"connectrpc.com/connect"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

// maximumRequest bounds a compiled policy in bytes.
const maximumRequest = 256 << 20

// handler serves the role's unix socket. The plugin and the host's own tools send JSON; the calls of operators, which
// the roles api and groups forward, are NetworkService.
//
//	POST /v1/containers/add | remove | check    container → attachment
//	PUT  /v1/policy                             compiled policy → its hash
//	GET  /v1/status                             datapath.Status, whether a policy is declared, what bypasses the datapath
//	POST /v1/repair                             → the problems that were found
//	GET  /metrics                               Prometheus text
func (n *network) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/containers/add", onContainer(func(c container) (any, error) { return n.add(c) }))
	mux.HandleFunc("POST /v1/containers/remove", onContainer(func(c container) (any, error) { return struct{}{}, n.remove(c) }))
	mux.HandleFunc("POST /v1/containers/check", onContainer(func(c container) (any, error) { return struct{}{}, n.check(c) }))
	mux.HandleFunc("PUT /v1/policy", func(writer http.ResponseWriter, request *http.Request) {
		compiled, err := io.ReadAll(http.MaxBytesReader(writer, request.Body, maximumRequest))
		if err != nil {
			answer(writer, nil, err)
			return
		}
		hash, err := n.apply(compiled)
		answer(writer, map[string]string{"hash": hash}, err)
	})
	mux.HandleFunc("GET /v1/status", func(writer http.ResponseWriter, _ *http.Request) {
		status, err := n.datapath.Status()
		if err != nil {
			answer(writer, nil, err)
			return
		}
		bypasses, err := findBypasses(n.handle)
		declared, _ := n.declaredPolicy()
		recorded, damaged := n.recordProblems()
		answer(writer, struct {
			datapath.Status
			// PolicyDeclared is false while the default policy is in force, which allows everything.
			PolicyDeclared bool     `json:"policyDeclared"`
			Bypasses       []string `json:"bypasses"`
			// Records says what is wrong with the role's own record.
			Records []string `json:"records,omitempty"`
		}{status, declared != nil || damaged, bypasses, recorded}, err)
	})
	mux.HandleFunc("POST /v1/repair", func(writer http.ResponseWriter, _ *http.Request) {
		problems, err := n.datapath.Repair()
		answer(writer, problems, err)
	})
	mux.HandleFunc("GET /metrics", func(writer http.ResponseWriter, _ *http.Request) {
		writer.Header().Set("Content-Type", "text/plain; version=0.0.4")
		if err := n.datapath.WriteMetrics(writer); err != nil {
			n.logger.Error("metrics", "error", err)
		}
	})
	mux.Handle(agentv1connect.NewNetworkServiceHandler(&networkService{n}, connect.WithReadMaxBytes(maximumRequest)))
	return mux
}

func onContainer(do func(container) (any, error)) http.HandlerFunc {
	return func(writer http.ResponseWriter, request *http.Request) {
		var c container
		err := json.NewDecoder(http.MaxBytesReader(writer, request.Body, 1<<16)).Decode(&c)
		if err == nil && (c.ID == "" || c.Interface == "") {
			err = errors.New("container: id and interface have to be set")
		}
		if err != nil {
			answer(writer, nil, err)
			return
		}
		result, err := do(c)
		answer(writer, result, err)
	}
}

func answer(writer http.ResponseWriter, result any, err error) {
	writer.Header().Set("Content-Type", "application/json")
	if err != nil {
		writer.WriteHeader(http.StatusBadRequest)
		result = failure{err.Error()}
	}
	_ = json.NewEncoder(writer).Encode(result)
}

// failure is the response to a failed request.
type failure struct {
	Error string `json:"error"`
}
