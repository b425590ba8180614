// testhost provides what an agent needs from its host, for tests on other machines: a container runtime that starts
// nothing, and a registry of sealed images. It serves until its standard input ends.
//
// The program of a container is the first word of its command:
//
//	/crash  writes two lines to its log and ends with exit code 1
//	/done   the same with exit code 0
//
// Every other program writes the same lines and runs until it is stopped.
package main

import (
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/palisade-host/palisade/hosts/agent/internal/groups/fakecri"
	"github.com/palisade-host/palisade/hosts/agent/internal/images/registrytest"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

// process stands for the test in helpers that need one.
type process struct {
	testing.TB
}

func (process) Helper()              {}
func (process) Fatal(reasons ...any) { log.Fatal(reasons...) }

// Cleanup does nothing, because everything ends with the process.
func (process) Cleanup(func()) {}

// description is printed when everything serves, as one line of JSON.
type description struct {
	// Images are references of sealed images.
	Images []string `json:"images"`
	// Server is the name of the registry in references, and Endpoint its address. CA is in PEM.
	Server   string `json:"server"`
	Endpoint string `json:"endpoint"`
	CA       string `json:"ca"`
	Username string `json:"username"`
	Password string `json:"password"`
}

func main() {
	socket := flag.String("socket", "", "unix socket of the container runtime")
	trust := flag.String("trust", "", "folder that gets the key of the images' seals, as the agent reads it")
	flag.Parse()
	listener, err := net.Listen("unix", *socket)
	if err != nil {
		log.Fatal(err)
	}
	runtime := fakecri.New(time.Now)
	runtime.OnStart(start)
	go func() { log.Fatal(runtime.Server().Serve(listener)) }()

	described, err := serveImages(*trust)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(described); err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// serveImages serves a registry with two sealed images.
func serveImages(trust string) (*description, error) {
	server := registrytest.New(process{})
	server.User, server.Password = "palisade", "registry-canary"
	key := sealtest.NewKey(process{})
	folder := filepath.Join(trust, "seals")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(folder, "seal.pem"), []byte(key.PEM), 0o644); err != nil {
		return nil, err
	}
	described := &description{
		Server: "registry.test", Endpoint: server.URL, Username: server.User, Password: server.Password,
		CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
	}
	for _, content := range []string{"one", "two"} {
		image := sealtest.NewImage(process{}, content)
		described.Images = append(described.Images, server.AddImage(image))
		server.AddSeal(process{}, image, key.Seal(process{}, image.Sealed))
	}
	return described, nil
}

// start starts a container's program.
func start(program fakecri.Program) *fakecri.Exit {
	file, err := os.OpenFile(program.Log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return &fakecri.Exit{Code: 128, Reason: "StartError"}
	}
	defer file.Close()
	for _, line := range []string{"starting", "cannot open configuration"} {
		fmt.Fprintf(file, "%s stderr F %s\n", time.Now().UTC().Format(time.RFC3339Nano), line)
	}
	command := append(program.Config.GetCommand(), "")
	switch command[0] {
	case "/crash":
		return &fakecri.Exit{Code: 1, Reason: "Error"}
	case "/done":
		return &fakecri.Exit{Code: 0, Reason: "Completed"}
	default:
		return nil
	}
}
