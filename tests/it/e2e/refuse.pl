# Runs a program on a kernel that refuses some system calls: refuse.pl RULE… -- PROGRAM ARGUMENT…
# A RULE is NUMBER:ERRNO, or NUMBER:ERRNO:N=VALUE for the calls whose argument N has this value. Needs CAP_SYS_ADMIN in
# its user namespace, so that set-id programs below still work.
use strict;
use warnings;

my ($LD, $JEQ, $RET) = (0x20, 0x15, 0x06);
my ($ALLOW, $ERRNO) = (0x7fff0000, 0x00050000);

my @rules;
while (defined(my $rule = shift @ARGV)) {
    last if $rule eq '--';
    push @rules, $rule;
}
my @program;
for my $rule (@rules) {
    my ($number, $errno, $argument) = split /:/, $rule;
    my @refuse = ([$RET, 0, 0, $ERRNO | $errno]);
    if (defined $argument) {
        my ($n, $value) = split /=/, $argument;
        unshift @refuse, [$LD, 0, 0, 16 + 8 * $n], [$JEQ, 0, 1, $value];
    }
    push @program, [$LD, 0, 0, 0], [$JEQ, 0, scalar @refuse, $number], @refuse;
}
push @program, [$RET, 0, 0, $ALLOW];
my $code = join '', map { pack 'SCCL', @$_ } @program;
my $filter = pack 'S x![P] P', scalar @program, $code;
my $machine = (split ' ', qx(uname -m))[0];
my $SECCOMP = $machine eq 'x86_64' ? 317 : 277;
syscall($SECCOMP, 1, 0, $filter) == 0 or die "seccomp: $!\n";
exec @ARGV or die "$ARGV[0]: $!\n";
