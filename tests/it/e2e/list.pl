# Lists /t, one line per entry, with all attributes that a layer can hold. Needs only perl-base. `list.pl links` also
# shows which names are hard links to one file: an overlay reports that correctly only for files not in a lower layer.
use strict;
use warnings;
use Fcntl ':mode';

my %first;

sub quoted {
    my ($text) = @_;
    $text =~ s/([^ -~]|[%\\])/sprintf '%%%02x', ord $1/ge;
    return $text;
}

# syscall numbers: x86_64 and aarch64 differ.
my $machine = (split ' ', qx(uname -m))[0];
my ($LLISTXATTR, $LGETXATTR) = $machine eq 'x86_64' ? (195, 192) : (12, 9);

sub attributes {
    my ($path, $size) = @_;
    my $names = "\0" x 65536;
    my $length = syscall $LLISTXATTR, $path, $names, 65536;
    return '' if $length <= 0;
    my @found;
    for my $name (split /\0/, substr $names, 0, $length) {
        my $value = "\0" x 65536;
        my $size = syscall $LGETXATTR, $path, $name, $value, 65536;
        # The stand-in of a device node becomes an ordinary file once it has been written to.
        next if $size && $name =~ /^user\.svp\./;
        push @found, " $name=" . quoted(substr $value, 0, $size < 0 ? 0 : $size);
    }
    return join '', sort @found;
}

sub visit {
    my ($path) = @_;
    my @s = lstat $path or die "lstat $path: $!";
    my $mode = $s[2];
    my $line = quoted($path);
    if (S_ISREG($mode)) {
        open my $sum, '-|', 'sha1sum', '--zero', '--', $path or die "sha1sum: $!";
        $line .= " file $s[7] " . substr <$sum>, 0, 40;
    }
    elsif (S_ISDIR($mode)) { $line .= ' dir' }
    elsif (S_ISLNK($mode)) { $line .= ' link ' . quoted(readlink $path) }
    elsif (S_ISFIFO($mode)) { $line .= ' fifo' }
    elsif (S_ISSOCK($mode)) { return }
    else { $line .= (S_ISCHR($mode) ? ' char ' : ' block ') . $s[6] }
    $line .= sprintf ' %o', S_IMODE($mode) unless S_ISLNK($mode);
    $line .= " $s[4]:$s[5]";
    $line .= attributes($path, S_ISREG($mode) ? $s[7] : 0);
    # Nanoseconds: perl's own stat has none.
    open my $stat, '-|', 'stat', '-c', '%.9Y', '--', $path or die "stat: $!";
    my $time = <$stat>;
    chomp $time;
    $line .= " $time";
    if (@ARGV && !S_ISDIR($mode) && $s[3] > 1) {
        $first{"$s[0]:$s[1]"} //= quoted($path);
        $line .= ' = ' . $first{"$s[0]:$s[1]"};
    }
    print "$line\n";
    if (S_ISDIR($mode)) {
        opendir my $dir, $path or die "opendir $path: $!";
        visit("$path/$_") for sort grep { $_ ne '.' && $_ ne '..' } readdir $dir;
    }
}

visit('/t');
