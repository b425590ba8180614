// Command palisade-probe is the attacker and the witness of the tests: it runs as root on a host whose image was built
// with it, takes commands over the virtio serial port `palisade.probe` and answers with what happened. No image that a
// user builds contains it; the tests build their own, signed like any other.
//
// Requests and answers are JSON, one object per line. `palisade-probe do` is the attacker proper (attacks.go).
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"time"
)

const defaultPort = "/dev/virtio-ports/palisade.probe"

// request asks for one program run or one file to be read.
type request struct {
	ID int `json:"id"`
	// Program and arguments; no shell is involved.
	Command []string `json:"command,omitempty"`
	Stdin   string   `json:"stdin,omitempty"`
	// Added to the probe's own environment.
	Environment map[string]string `json:"environment,omitempty"`
	// Alternatively: the path of a file whose content is wanted.
	Read string `json:"read,omitempty"`
	// Alternatively: the path of a file to write Stdin to, mode 0755; base64 when Binary is set.
	Write  string `json:"write,omitempty"`
	Binary bool   `json:"binary,omitempty"`
}

// response reports the result. Error is set when nothing could be run, with the system's words.
type response struct {
	ID       int    `json:"id"`
	ExitCode int    `json:"exitCode"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
	Error    string `json:"error,omitempty"`
}

// What a command may take. An emulated host on a busy machine is many times slower than a real one.
const (
	commandTimeout = 5 * time.Minute
	// The part of it in which a command removes what it made.
	cleanupTimeout = time.Minute
)

func handle(r request) response {
	answer := response{ID: r.ID}
	switch {
	case r.Read != "":
		content, err := os.ReadFile(r.Read)
		answer.Stdout = string(content)
		if err != nil {
			answer.ExitCode, answer.Error = -1, err.Error()
		}
	case r.Write != "":
		content, err := []byte(r.Stdin), error(nil)
		if r.Binary {
			content, err = base64.StdEncoding.DecodeString(r.Stdin)
		}
		if err == nil {
			err = os.WriteFile(r.Write, content, 0o755)
		}
		if err != nil {
			answer.ExitCode, answer.Error = -1, err.Error()
		}
	case len(r.Command) > 0:
		run(r, &answer)
	default:
		answer.ExitCode, answer.Error = -1, "the request names no command, read or write"
	}
	return answer
}

func run(r request, answer *response) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(r.Command[0], r.Command[1:]...)
	cmd.Stdin = bytes.NewBufferString(r.Stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = os.Environ()
	for name, value := range r.Environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if err := cmd.Start(); err != nil {
		answer.ExitCode, answer.Error = -1, err.Error()
		return
	}
	timer := time.AfterFunc(commandTimeout, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	answer.Stdout, answer.Stderr = stdout.String(), stderr.String()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		answer.ExitCode = exit.ExitCode()
	case err != nil:
		answer.ExitCode, answer.Error = -1, err.Error()
	}
}

// serve answers every line of in on out until in ends.
func serve(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	encoder := json.NewEncoder(out)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var r request
			answer := response{ExitCode: -1}
			if jsonErr := json.Unmarshal(line, &r); jsonErr != nil {
				answer.Error = fmt.Sprintf("not a request: %v", jsonErr)
			} else {
				answer = handle(r)
			}
			if err := encoder.Encode(answer); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "do" {
		os.Exit(attack(os.Args[2:]))
	}
	port := defaultPort
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	for {
		device, err := os.OpenFile(port, os.O_RDWR, 0)
		if err == nil {
			err = serve(device, device)
			_ = device.Close()
		}
		if !errors.Is(err, io.EOF) {
			slog.Warn("probe port", "error", err)
		}
		// Nobody is connected on the hypervisor's side.
		time.Sleep(200 * time.Millisecond)
	}
}
