/*
 * Modes other than 64-bit: 32-bit protected mode with and without paging, 16-bit protected mode,
 * real mode, virtual-8086 mode, task switches. The code is assembly (legacy.S, real16.S, tasks.S);
 * it leaves numbers in a table that guest/realmode.c checks. Included by assembly too.
 */
#pragma once

#define REAL_BASE    0x10000 /* the 16-bit code is copied here; CS = DS = REAL_BASE >> 4 */
#define REAL_RESULTS 0xe000  /* offset of the table of 32-bit results */
#define REAL_STACK   0xdff0

#define RESULTS (REAL_BASE + REAL_RESULTS)

/* GDT of these modes. */
#define L_CODE32     0x08
#define L_DATA32     0x10
#define L_CODE16     0x18
#define L_DATA16     0x20
#define L_TSS	     0x28 /* the main task */
#define L_TSS_A	     0x30 /* the other one */
#define L_GATE	     0x38 /* task gate to it */
#define L_ABSENT     0x40 /* data segment, not present */
#define L_TSS_ABSENT 0x48
#define L_TSS_SHORT  0x50
#define L_UCODE	     0x58
#define L_UDATA	     0x60
#define L_COUNT	     14

/* Results of pm32_tests. */
#define R_PM_CR0      0
#define R_PM_DE	      1
#define R_PM_UD	      2
#define R_PM_NP	      3
#define R_PM_NP_ERROR 4
#define R_PM_BP	      5
#define R_PM_OF	      6
#define R_PM_BR	      7
#define R_PM_INT      8
#define R_PM_CPUID    9
#define R_PG32_READ   10
#define R_PG32_PF     11
#define R_PG32_ERROR  12
#define R_PG32_CR2    13
#define R_PAE_READ    14
#define R_PAE_STALE   15
#define R_PAE_PF      16
#define R_PAE_GP      17
#define R_PAE_PG_GP   18
#define R_PM_EFER     19
#define R_PM_VMCALL   20
#define R_V86_CPUID   21
#define R_V86_TRAP    22
#define R_V86_ERROR   23
#define R_V86_FLAGS   24
#define R_V86_CS      25
#define R_V86_SEGMENT 26
#define R_U32_TRAP    27
#define R_U32_ERROR   28
#define R_U32_CS      29
#define R_PM_INS      30

/* Results of the 16-bit code. */
#define R_PM16_STORE   40
#define R_PM16_STACK   41
#define R_RM_CR0       42
#define R_RM_INT       43
#define R_RM_INT_IP    44
#define R_RM_DE	       45
#define R_RM_UD	       46
#define R_RM_STEPS     47
#define R_RM_CPUID     48
#define R_RM_IRQ       49
#define R_RM_BIG       50
#define R_RM_WRAP      51
#define R_RM_INS       52
#define R_RM_OUTS      53
#define R_RM_FRESH     54
#define R_RM_FARCALL   55
#define R_RM_FLAGS     56
#define R_RM_LIMIT     57
#define R_RM_LIMIT32   58
#define R_RM_MSR       59
#define R_RM_VMCALL    60
#define R_RM_DONE      61
#define R_RM_LMSW      62
#define R_RM_SP	       63
#define R_RM_INT_FLAGS 64

/* Results of the task switches. */
#define R_T_JMP_REGS	  70
#define R_T_JMP_FLAGS	  71
#define R_T_JMP_CR0	  72
#define R_T_JMP_LINK	  73
#define R_T_JMP_BUSY	  74 /* type bytes: low byte main, second byte other */
#define R_T_JMP_TR	  75
#define R_T_JMP_BACK	  76
#define R_T_JMP_BUSY2	  77
#define R_T_CALL_FLAGS	  78
#define R_T_CALL_LINK	  79
#define R_T_CALL_BUSY	  80
#define R_T_CALL_BACK	  81
#define R_T_CALL_BUSY2	  82
#define R_T_INT_LINK	  83
#define R_T_INT_BACK	  84
#define R_T_INT_FLAGS	  85
#define R_T_EXC_ERROR	  86
#define R_T_EXC_EIP	  87
#define R_T_EXC_BACK	  88
#define R_T_GATE_BACK	  89
#define R_T_BUSY_VEC	  90
#define R_T_BUSY_ERR	  91
#define R_T_NP_VEC	  92
#define R_T_NP_ERR	  93
#define R_T_TS_VEC	  94
#define R_T_TS_ERR	  95
#define R_T_DBG_VEC	  96
#define R_T_DBG_DR6	  97
#define R_T_CR3_MAIN	  98
#define R_T_CR3_OTHER	  99
#define R_T_CR3_BACK	  100
#define R_T_REGS_BACK	  101
#define R_T_BADDS_VEC	  102
#define R_T_BADDS_ERR	  103
#define R_T_BADDS_TR	  104
#define R_T_INT_EIP	  105
#define R_T_CALL_NT_SAVED 106
#define R_T_IRET_LINK_VEC 107
#define R_T_IRET_LINK_ERR 108
#define R_COUNT		  112
