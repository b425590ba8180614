// palisade-agent is the program that operates a Palisade host. It has no shell and starts no other program. Each role
// is a process of its own with its own user: `api` (the only open port), `groups` (container groups through
// containerd's CRI), `images` (sealed images and the policies that admit them), `integrity` (read-only facts of the
// kernel), `template` (clones of a machine) and `netd` (the datapath). Under the name palisade-cni it is the CNI plugin
// of netd.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/palisade-host/palisade/hosts/agent/internal/api"
	"github.com/palisade-host/palisade/hosts/agent/internal/enrollment"
	"github.com/palisade-host/palisade/hosts/agent/internal/groups"
	"github.com/palisade-host/palisade/hosts/agent/internal/images"
	"github.com/palisade-host/palisade/hosts/agent/internal/integrity"
	"github.com/palisade-host/palisade/hosts/agent/internal/netd"
	"github.com/palisade-host/palisade/hosts/agent/internal/template"
)

// version is set at link time: -X main.version=….
var version = "0.1.0"

const usage = `usage: palisade-agent <role> [flags]

roles:
  api        serves the agent's contract on :8443 with mutual TLS, enrols the host
  groups     keeps container groups as declared, through containerd
  images     fetches sealed images, holds the image policies
  integrity  reports the kernel's integrity facts
  template   holds the boot of a machine that is kept as a template, releases its clones
  netd       connects containers and enforces network policy by eBPF
  identity   makes and enrols a host's identity while the host is installed
  version    prints the version

palisade-agent <role> -help lists the role's flags.
`

func main() {
	if filepath.Base(os.Args[0]) == "palisade-cni" {
		netd.Plugin()
		return
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	role, rest := args[0], args[1:]
	// The journal adds the time to each line.
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(groups []string, attribute slog.Attr) slog.Attr {
			if len(groups) == 0 && attribute.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return attribute
		},
	})).With("role", role)
	slog.SetDefault(logger)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	var err error
	switch role {
	case "api":
		err = api.Run(ctx, version, rest, logger)
	case "groups":
		err = groups.Run(ctx, version, rest, logger)
	case "images":
		err = images.Run(ctx, rest, logger)
	case "integrity":
		err = integrity.Run(ctx, rest, logger)
	case "template":
		err = template.Run(ctx, rest, logger)
	case "netd":
		err = netd.Run(ctx, rest, logger)
	case "identity":
		err = enrollment.RunIdentity(ctx, rest, os.Stdin, os.Stdout, logger)
	case "version", "-version", "--version":
		fmt.Println(version)
		return 0
	default:
		fmt.Fprintf(os.Stderr, "unknown role %q\n\n%s", role, usage)
		return 2
	}
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		logger.Error("stopped", "error", err)
		return 1
	}
	return 0
}
