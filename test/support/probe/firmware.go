package main

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// variables is where an attacker mounts the firmware's variables.
const variables = "/run/palisade-attack-variables"

// withVariables mounts the firmware's variables, which can be done as often as one likes.
func withVariables(work func() error) error {
	if err := os.MkdirAll(variables, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("efivarfs", variables, "efivarfs", 0, ""); err != nil {
		return err
	}
	err := work()
	if unmountErr := unix.Unmount(variables, 0); err == nil {
		err = unmountErr
	}
	return err
}

// plantVariable makes a variable that stays, of attributes and a value.
func plantVariable(name, content string) error {
	decoded, err := hex.DecodeString(content)
	if err != nil {
		return err
	}
	return withVariables(func() error {
		file, err := os.OpenFile(filepath.Join(variables, name), os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		_, err = file.Write(decoded)
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		return err
	})
}

// removeVariable removes a variable that plantVariable has made.
func removeVariable(name string) error {
	return withVariables(func() error {
		path := filepath.Join(variables, name)
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		// efivarfs protects variables from being removed by mistake.
		var none int32
		_, _, number := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.FS_IOC_SETFLAGS, uintptr(unsafe.Pointer(&none)))
		_ = file.Close()
		if number != 0 {
			return errors.New("still protected: " + number.Error())
		}
		return os.Remove(path)
	})
}
