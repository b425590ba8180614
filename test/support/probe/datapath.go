package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

func detach(pin string) error {
	found, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return err
	}
	defer found.Close()
	return found.Detach()
}

func emptyMap(pin string) error {
	found, err := ebpf.LoadPinnedMap(pin, nil)
	if err != nil {
		return err
	}
	defer found.Close()
	for {
		key, err := found.NextKeyBytes(nil)
		if err != nil || key == nil {
			return err
		}
		if err := found.Delete(key); err != nil {
			return err
		}
	}
}

func ask(socket, path string) error {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	response, err := client.Get("http://host" + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", response.Status)
	}
	return nil
}
