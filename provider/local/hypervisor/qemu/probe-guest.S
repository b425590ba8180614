# The probe guest: a boot sector that goes the way of every modern kernel (real, protected and long mode with paging)
# and then says so on the first serial port, again and again. Its bytes are in probe-guest.ts; the test beside it
# assembles this file and compares:
#     as -o probe.o probe-guest.S && ld -Ttext 0x7c00 --oformat binary -o probe.bin probe.o
        .code16
        .globl _start
_start: cli
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x7c00, %sp
# Page tables at 0x1000: one page of 2 MiB, mapped to itself.
        mov $0x1000, %edi
        mov %edi, %cr3
        xor %eax, %eax
        mov $3072, %cx
        rep stosl
        movl $0x2003, 0x1000
        movl $0x3003, 0x2000
        movl $0x0083, 0x3000
        mov %cr4, %eax
        or $0x20, %eax
        mov %eax, %cr4
        mov $0xc0000080, %ecx
        rdmsr
        or $0x100, %eax
        wrmsr
        lgdt descriptor
        mov %cr0, %eax
        or $0x80000001, %eax
        mov %eax, %cr0
        ljmp $8, $long
        .code64
long:   mov $0x3fb, %dx
        mov $3, %al
        out %al, %dx
again:  mov $text, %esi
next:   mov $0x3fd, %dx
wait:   in %dx, %al
        test $0x20, %al
        jz wait
        lodsb
        test %al, %al
        jz again
        mov $0x3f8, %dx
        out %al, %dx
        jmp next
text:   .asciz "palisade-probe\n"
        .balign 8
table:  .quad 0
        .quad 0x00209a0000000000
descriptor:
        .word . - table - 1
        .long table
        .org 510
        .word 0xaa55
