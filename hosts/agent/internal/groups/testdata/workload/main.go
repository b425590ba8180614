// The program of the test images: its first argument selects what it does.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	mode := "pause"
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	switch mode {
	case "serve":
		directory, _ := os.Getwd()
		fmt.Println("serving", directory)
		go func() {
			<-terminated
			os.Exit(0)
		}()
		err := http.ListenAndServe(":"+os.Args[2], http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(writer, "hello %s from %s", os.Getenv("NAME"), directory)
		}))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case "exit":
		fmt.Println("exiting with", os.Args[2])
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	default:
		<-terminated
	}
}
