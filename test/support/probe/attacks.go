package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/hosts/devicemapper"
	"github.com/palisade-host/palisade/hosts/verity"
)

// attackKind is one attack: how many arguments it takes at least, and what it does.
type attackKind struct {
	arguments int
	run       func(arguments []string) error
}

// attacks are what `palisade-probe do NAME ARGUMENTS...` tries, in a process of its own. Each prints one word: "done",
// or the name of the error with which the kernel refused, e.g. EACCES.
var attacks = map[string]attackKind{
	// copy SOURCE TARGET: a program into a place.
	"copy":   {2, func(a []string) error { return copyFile(a[0], a[1]) }},
	"rename": {2, func(a []string) error { return os.Rename(a[0], a[1]) }},
	"remove": {1, func(a []string) error { return os.Remove(a[0]) }},
	// run PROGRAM [ARGUMENTS]: without a shell; the program has to succeed.
	"run": {1, func(a []string) error { return runQuietly(a[0], a[1:]...) }},
	// memfd PROGRAM: from anonymous memory.
	"memfd": {1, func(a []string) error { return runFromMemory(a[0]) }},
	// remount PLACE exec|noexec: takes a layer of protection away, or puts it back.
	"remount": {2, func(a []string) error { return remount(a[0], a[1] == "noexec") }},
	// Memory that was writable becomes executable.
	"mmap-anonymous":     {0, func([]string) error { return mapAnonymous(unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC) }},
	"mprotect-anonymous": {0, func([]string) error { return protectAnonymous() }},
	// mprotect-file FILE: a private mapping of a signed file, changed.
	"mprotect-file": {1, func(a []string) error { return protectFile(a[0]) }},
	// Code of a running process, through /proc and through ptrace.
	"proc-mem": {0, func([]string) error { return writeOwnCode() }},
	"ptrace":   {1, func(a []string) error { return traceChild(a[0]) }},
	// write FILE HEX: one write to a file of the kernel, as policies and switches want it.
	"write": {2, func(a []string) error { return writeOnce(a[0], a[1]) }},
	// flip FILE OFFSET: the bits of one byte.
	"flip": {2, func(a []string) error { return flip(a[0], a[1]) }},
	// read FILE OFFSET: one byte, past the cache where the file system allows it.
	"read-byte": {2, func(a []string) error { return readByte(a[0], a[1]) }},
	// byte FILE OFFSET: prints one byte as a number.
	"byte": {2, func(a []string) error { return printByte(a[0], a[1]) }},
	// find FILE HEX: where bytes begin in a file.
	"find":  {2, func(a []string) error { return find(a[0], a[1]) }},
	"mkdir": {1, func(a []string) error { return os.MkdirAll(a[0], 0o755) }},
	// start PROGRAM [ARGUMENTS]: something that goes on running.
	"start": {1, func(a []string) error { return startQuietly(a[0], a[1:]...) }},
	// sleep SECONDS: something that runs.
	"sleep": {1, func(a []string) error { return sleep(a[0]) }},
	// mount SOURCE TARGET TYPE, umount TARGET.
	"mount":  {3, func(a []string) error { return mountReadOnly(a[0], a[1], a[2]) }},
	"umount": {1, func(a []string) error { return unix.Unmount(a[0], 0) }},
	// verity DEVICE HASH-OFFSET ROOT-HASH SIGNATURE|-: opens a verity device of one block device, and closes it again.
	"verity": {4, func(a []string) error { return openVerity(a[0], a[1], a[2], a[3]) }},
	// What somebody with all privileges does to the datapath behind netd's back (datapath.go).
	// detach PIN: the program of a pinned link from its interface.
	"detach": {1, func(a []string) error { return detach(a[0]) }},
	// empty-map PIN: all entries of a pinned map.
	"empty-map": {1, func(a []string) error { return emptyMap(a[0]) }},
	// ask SOCKET PATH: prints the answer to an HTTP request over a unix socket.
	"ask": {2, func(a []string) error { return ask(a[0], a[1]) }},
	// rootfs unmount|descriptor|pivot|kernel-thread run|map|load FILE: in the initrd's file system (rootfs.go).
	"rootfs": {3, func(a []string) error { return attackRootfs(a[0], a[1], a[2]) }},
	// What reaches the kernel itself (kernel.go).
	// module FILE, module-memory FILE: loads a module, and removes it again.
	"module":        {1, func(a []string) error { return loadModule(a[0]) }},
	"module-memory": {1, func(a []string) error { return loadModuleFromMemory(a[0]) }},
	// register MODULE: writes a register of the processor, by the driver for that.
	"register": {1, func(a []string) error { return writeRegister(a[0]) }},
	"memory":   {0, func([]string) error { return openMemory() }},
	"ports":    {0, func([]string) error { return usePorts() }},
	"kexec":    {0, func([]string) error { return loadNoKernel() }},
	// plant VARIABLE HEX, unplant VARIABLE: a variable of the firmware, past all mounts (firmware.go).
	"plant":   {2, func(a []string) error { return plantVariable(a[0], a[1]) }},
	"unplant": {1, func(a []string) error { return removeVariable(a[0]) }},
	// containerd WHAT IMAGE: over CRI's socket (cri.go).
	"containerd": {2, func(a []string) error { return attackContainerd(a[0], a[1]) }},
}

func init() {
	// as UID ATTACK...: with the uid of a role. Here, as it looks into the table.
	attacks["as"] = attackKind{2, func(a []string) error { return attackAs(a[0], a[1:]) }}
}

// attack runs one attack, or several: with "then" between them until one is refused, with "also" all of them. It
// returns the result of the last one that ran.
func attack(arguments []string) (code int) {
	for len(arguments) > 0 {
		one, rest, goesOn := arguments, []string(nil), false
		if next := slices.IndexFunc(arguments, func(word string) bool { return word == "then" || word == "also" }); next >= 0 {
			one, rest, goesOn = arguments[:next], arguments[next+1:], arguments[next] == "also"
		}
		if code = attackOnce(one); code == 2 || code != 0 && !goesOn {
			return code
		}
		arguments = rest
	}
	return code
}

// attackOnce returns 0 when the attack succeeded, 1 when it was refused, 2 when it is not understood.
func attackOnce(arguments []string) int {
	if len(arguments) == 0 {
		return 2
	}
	found, known := attacks[arguments[0]]
	if !known || len(arguments)-1 < found.arguments {
		fmt.Fprintf(os.Stderr, "palisade-probe: %q is no attack of that many arguments\n", arguments)
		return 2
	}
	err := found.run(arguments[1:])
	fmt.Println(describe(err))
	if err != nil {
		return 1
	}
	return 0
}

// describe names the error number of an error, where it has one.
func describe(err error) string {
	var number syscall.Errno
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &number):
		return unix.ErrnoName(number)
	}
	return err.Error()
}

func copyFile(source, target string) error {
	content, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	if err := os.WriteFile(target, content, 0o755); err != nil {
		return err
	}
	return os.Chmod(target, 0o755)
}

func runQuietly(program string, arguments ...string) error {
	return exec.Command(program, arguments...).Run()
}

func startQuietly(program string, arguments ...string) error {
	command := exec.Command(program, arguments...)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return command.Start()
}

func runFromMemory(program string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	memory, err := unix.MemfdCreate("palisade", 0)
	if err != nil {
		return err
	}
	if _, err := unix.Write(memory, content); err != nil {
		return err
	}
	return runQuietly(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), memory), "do", "sleep", "0")
}

func remount(place string, noexec bool) error {
	var status unix.Statfs_t
	if err := unix.Statfs(place, &status); err != nil {
		return err
	}
	// Its other flags stay; the numbers are the same in statfs(2) and mount(2).
	const kept = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME
	flags := uintptr(unix.MS_REMOUNT|unix.MS_BIND) | uintptr(status.Flags)&kept
	if noexec {
		flags |= unix.MS_NOEXEC
	}
	return unix.Mount("", place, "", flags, "")
}

func mapAnonymous(protection int) error {
	memory, err := unix.Mmap(-1, 0, os.Getpagesize(), protection, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	return unix.Munmap(memory)
}

func protectAnonymous() error {
	memory, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	memory[0] = 0xc3
	return unix.Mprotect(memory, unix.PROT_READ|unix.PROT_EXEC)
}

func protectFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	memory, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	memory[0] ^= 0xff
	return unix.Mprotect(memory, unix.PROT_READ|unix.PROT_EXEC)
}

// victim is code that nobody calls.
func victim() int { return 42 }

func codeAddress() uintptr {
	return reflect.ValueOf(victim).Pointer()
}

// writeOwnCode writes the byte that is there already, which the kernel cannot know.
func writeOwnCode() error {
	memory, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	code := make([]byte, 1)
	if _, err := memory.ReadAt(code, int64(codeAddress())); err != nil {
		return err
	}
	_, err = memory.WriteAt(code, int64(codeAddress()))
	return err
}

// traceChild starts a program as a tracer does and writes its code.
func traceChild(program string) error {
	runtime.LockOSThread()
	command := exec.Command(program)
	command.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := command.Start(); err != nil {
		return err
	}
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}()
	pid := command.Process.Pid
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return err
	}
	var registers syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(pid, &registers); err != nil {
		return err
	}
	word := make([]byte, unsafe.Sizeof(uintptr(0)))
	if _, err := syscall.PtracePeekText(pid, uintptr(registers.Rip), word); err != nil {
		return err
	}
	_, err := syscall.PtracePokeText(pid, uintptr(registers.Rip), word)
	return err
}

func writeOnce(file, content string) error {
	decoded, err := hex.DecodeString(content)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(decoded)
	return err
}

func flip(file, at string) error {
	offset, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	content := make([]byte, 1)
	if _, err := f.ReadAt(content, offset); err != nil {
		return err
	}
	content[0] ^= 0xff
	if _, err := f.WriteAt(content, offset); err != nil {
		return err
	}
	return f.Sync()
}

func readByte(file, at string) error {
	offset, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return err
	}
	_, err = f.ReadAt(make([]byte, 1), offset)
	return err
}

func printByte(file, at string) error {
	offset, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	content := make([]byte, 1)
	if _, err := f.ReadAt(content, offset); err != nil {
		return err
	}
	fmt.Println(content[0])
	return nil
}

func find(file, content string) error {
	wanted, err := hex.DecodeString(content)
	if err != nil {
		return err
	}
	all, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	at := bytes.Index(all, wanted)
	if at < 0 {
		return errors.New("not found")
	}
	fmt.Println(at)
	return nil
}

func sleep(seconds string) error {
	duration, err := time.ParseDuration(seconds + "s")
	if err != nil {
		return err
	}
	time.Sleep(duration)
	return nil
}

func mountReadOnly(source, target, kind string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return unix.Mount(source, target, kind, unix.MS_RDONLY, "")
}

func openVerity(device, at, rootHash, signatureFile string) error {
	offset, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return err
	}
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	superblock, err := verity.ReadSuperblock(f, offset)
	if err != nil {
		return err
	}
	mapper, err := devicemapper.Open(devicemapper.Control)
	if err != nil {
		return err
	}
	defer mapper.Close()
	const name = "palisade-probe"
	source := verity.Source{Data: device, Hash: device, HashOffset: offset, Superblock: superblock}
	if signatureFile == "-" {
		_, err = mapper.CreateReadOnly(name, "", devicemapper.Target{
			Sectors: superblock.Sectors(), Kind: "verity",
			Parameters: superblock.UnsignedTable(device, device, offset, rootHash),
		})
	} else {
		var signature []byte
		if signature, err = os.ReadFile(signatureFile); err != nil {
			return err
		}
		_, err = verity.Open(mapper, name, source, rootHash, signature)
	}
	if err != nil {
		return err
	}
	return mapper.Remove(name)
}
