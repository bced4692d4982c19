# Changes /t at random: change.pl SEED ROUND. Creates and removes every kind of entry and metadata that a layer can
# hold, with real system calls. Changes that the sandbox refuses (a device node, an owner) are skipped: the listing
# shows the actual result.
use strict;
use warnings;
use POSIX ();

my ($seed, $round) = @ARGV;
srand $seed;

my $machine = (split ' ', qx(uname -m))[0];
my ($LSETXATTR, $LREMOVEXATTR) = $machine eq 'x86_64' ? (189, 198) : (6, 15);

sub pick { return $_[int rand @_] }

sub tree {
    my ($path, $kind) = @_;
    my @found;
    my @pending = ('/t');
    while (defined(my $dir = shift @pending)) {
        push @found, $dir if $kind ne 'other';
        opendir my $handle, $dir or next;
        for my $name (sort grep { $_ ne '.' && $_ ne '..' } readdir $handle) {
            my $full = "$dir/$name";
            if (-d $full && !-l $full) { push @pending, $full }
            elsif ($kind ne 'dir') { push @found, $full }
        }
    }
    return @found;
}

my $counter = 0;

sub fresh_name {
    my @styles = (
        sub { "f$_[0]" }, sub { "name with spaces $_[0]" }, sub { "\xff\xfe$_[0]" }, sub { "line\nbreak$_[0]" },
        sub { "l" x 180 . $_[0] }, sub { ".hidden$_[0]" }, sub { "=eq%$_[0]" }, sub { "-dash$_[0]" },
        sub { "\xc3\xa9\xe2\x82\xac$_[0]" }, sub { "wh.$_[0]" }, sub { "back\\slash$_[0]" },
    );
    return pick(@styles)->($round . '_' . $counter++);
}

sub spot { return pick(tree('/t', 'dir')) . '/' . fresh_name() }
sub any { my @all = grep { $_ ne '/t' } tree('/t', 'all'); return @all ? pick(@all) : undef }
# Picks a path with few entries below it, so that one removal takes only a few.
sub small {
    my $path = any();
    return undef unless defined $path;
    my @below = grep { index($_, "$path/") == 0 } tree('/t', 'all');
    return @below < 6 ? $path : undef;
}
sub other { my @all = tree('/t', 'other'); return @all ? pick(@all) : undef }
sub file { my @all = grep { -f $_ && !-l $_ } tree('/t', 'other'); return @all ? pick(@all) : undef }
sub content { my $n = pick(0, 1, 10, 511, 512, 513, 5000, 70000); return join '', map { chr int rand 256 } 1 .. $n }

sub write_file {
    my ($path, $mode, $content) = @_;
    open my $file, $mode, $path or return;
    binmode $file;
    print $file $content;
    close $file;
}

sub remove {
    my ($path) = @_;
    if (-d $path && !-l $path) { system 'rm', '-rf', '--', $path }
    else { unlink $path }
}

sub make {
    my ($path) = @_;
    my @ways = (
        sub { write_file($path, '>', content()) }, sub { write_file($path, '>', content()) },
        sub { mkdir $path }, sub { mkdir $path; write_file("$path/in", '>', 'in'); mkdir "$path/sub" },
        sub { symlink pick('a', '/etc/passwd', '../..', 'x' x 300, "\xff"), $path },
        sub { POSIX::mkfifo($path, 0644) },
        sub { my $old = file(); link $old, $path if defined $old },
        sub { my $old = other(); link $old, $path if defined $old },
        sub { system 'mknod', $path, pick('c', 'b'), 1, int rand 10; },
        sub { open my $file, '>', $path or return; truncate $file, pick(0, 4096, 1_000_000); close $file },
    );
    pick(@ways)->();
}

# perl's syscall may write to its strings, and so refuses constants.
sub set_attribute {
    my ($path, $name, $value) = @_;
    syscall $LSETXATTR, $path, $name, $value, length $value, 0;
}

sub attribute {
    my ($path) = @_;
    my $name = pick('user.one', 'user.two', 'user.overlay.opaque', 'user.overlay.whiteout', 'user.overlay.origin',
        'trusted.x', 'user.with space');
    if (rand() < 0.25) { syscall $LREMOVEXATTR, $path, $name; return }
    my $value = pick('v', '', "a\nb=c\n", "\0\1\2", 'y', 'z' x 400);
    set_attribute($path, $name, $value);
}

sub capability {
    my ($path) = @_;
    my $value = pack 'V V V V V', 0x02000001, 0x0a << 8 | 0x400, 0, 0, 0;
    set_attribute($path, 'security.capability', $value);
}

sub access_list {
    my ($path) = @_;
    # user::rw-, user:7:r--, group::r--, mask::r--, other::---
    my $value = pack 'V (v v V)5', 2, 1, 6, 0xffffffff, 2, 4, 7, 4, 4, 0xffffffff, 0x10, 4, 0xffffffff, 0x20, 0,
        0xffffffff;
    set_attribute($path, pick('system.posix_acl_access', 'system.posix_acl_default'), $value);
}

my @changes = (
    (sub { make(spot()) }) x ($round == 0 ? 16 : 4),
    sub { my $p = other(); remove($p) if defined $p },
    sub { my $p = small(); remove($p) if defined $p },
    sub { my $p = small(); if (defined $p) { remove($p); make($p) } },
    sub { my $p = any(); rename $p, spot() if defined $p },
    sub { my $p = other(); my $q = other(); rename $p, $q if defined $p && defined $q },
    sub { my $p = file(); write_file($p, '>>', content()) if defined $p },
    sub { my $p = file(); write_file($p, '>', content()) if defined $p },
    sub { my $p = any(); chmod pick(0644, 0600, 0755, 04755, 02755, 01777, 0, 06711), $p if defined $p && !-l $p },
    sub { my $p = any(); system 'chown', '-h', pick('0:0', '1:2', '33:33', '1000:1000', '65534:65534'), '--', $p if defined $p },
    sub {
        my $p = any();
        my $when = pick('@0', '@1', '@1000000000.123456789', '@1700000000.5', '@4294967296.000000001', '@-1.25');
        system 'touch', '-h', '-d', $when, '--', $p if defined $p;
    },
    sub { my $p = any(); attribute($p) if defined $p },
    sub { my $p = any(); attribute($p) if defined $p },
    sub { my $p = file(); capability($p) if defined $p },
    sub { my $p = any(); access_list($p) if defined $p && !-l $p },
    # Opening a file to append, without writing, is not a change.
    sub { my $p = file(); if (defined $p) { open my $f, '>>', $p; close $f if $f } },
    # A directory that is removed and created again is opaque.
    sub {
        my $d = small();
        if (defined $d && -d $d && !-l $d) { remove($d); mkdir $d; write_file("$d/new", '>', 'new') }
    },
);

mkdir '/t';
open STDERR, '>', '/dev/null';
pick(@changes)->() for 1 .. ($round == 0 ? 150 : 60);
exit 0;
