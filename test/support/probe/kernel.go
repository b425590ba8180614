package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loadModule loads a module that is not compressed, and removes it again.
func loadModule(file string) error {
	module, err := os.Open(file)
	if err != nil {
		return err
	}
	defer module.Close()
	if err := unix.FinitModule(int(module.Fd()), "", 0); err != nil {
		return err
	}
	return removeModule(file)
}

// loadModuleFromMemory does it without the kernel knowing a file.
func loadModuleFromMemory(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := unix.InitModule(content, ""); err != nil {
		return err
	}
	return removeModule(file)
}

// removeModule takes the name that the kernel knows from the name of the file.
func removeModule(file string) error {
	name := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
	if err := unix.DeleteModule(name, unix.O_NONBLOCK); err != nil {
		// Not with the error itself: its name would be taken for the answer to the attack.
		return errors.New("loaded, and not removed: " + err.Error())
	}
	return nil
}

// writeRegister writes the processor's time-stamp counter, which the driver of a module lets root read, with the value
// that it has just read.
func writeRegister(module string) error {
	const timeStampCounter = 0x10
	opened, err := os.Open(module)
	if err != nil {
		return err
	}
	defer opened.Close()
	if err := unix.FinitModule(int(opened.Fd()), "", 0); err != nil {
		return err
	}
	defer func() { _ = removeModule(module) }()
	registers, err := os.OpenFile("/dev/cpu/0/msr", os.O_RDWR, 0)
	if err != nil {
		return errors.New("not opened: " + err.Error())
	}
	defer registers.Close()
	value := make([]byte, 8)
	if _, err := registers.ReadAt(value, timeStampCounter); err != nil {
		return errors.New("not read: " + err.Error())
	}
	_, err = registers.WriteAt(value, timeStampCounter)
	return err
}

// openMemory opens the memory of the machine and reads its beginning.
func openMemory() error {
	memory, err := os.OpenFile("/dev/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	_, err = memory.Read(make([]byte, 4))
	return err
}

// usePorts asks for access to all input and output ports.
func usePorts() error {
	if _, _, err := unix.Syscall(unix.SYS_IOPL, 3, 0, 0); err != 0 {
		return err
	}
	return nil
}

// loadNoKernel asks for the start of another kernel, of no segments: where it is allowed, nothing happens.
func loadNoKernel() error {
	if _, _, err := unix.Syscall6(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0, 0, 0); err != 0 {
		return err
	}
	return nil
}
