package pages

// Permissions puts scopes into words. A scope that nobody gave words is shown as
// it is written: a guess could mislead.
func Permissions(scopes []string) []Permission {
	list := make([]Permission, 0, len(scopes))
	for _, scope := range scopes {
		list = append(list, Permission{Words: words(scope), Scope: scope})
	}
	return list
}

// Own puts scopes of our own tokens into words: those that mean something to us. The
// rest is the deployment's, whatever a provider means by a scope of the same name.
func Own(scopes []string) []Permission {
	list := make([]Permission, 0, len(scopes))
	for _, scope := range scopes {
		p := Permission{Scope: scope}
		if scope == "offline_access" { // OpenID Connect Core, section 11
			p.Words = "Stay connected while you are away, until you end it or have to sign in again"
		}
		list = append(list, p)
	}
	return list
}

func words(scope string) string {
	switch scope {
	case "openid": // OpenID Connect Core, section 5.4, as far as offline_access
		return "Know who you are"
	case "profile":
		return "See your name and profile"
	case "email", "user:email", "https://www.googleapis.com/auth/userinfo.email":
		return "See your e-mail address"
	case "address":
		return "See your postal address"
	case "phone":
		return "See your phone number"
	case "offline_access":
		return "Stay connected while you are away"
	case "read:user", "https://www.googleapis.com/auth/userinfo.profile":
		return "See your profile"
	case "user":
		return "See and change your profile"
	case "repo":
		return "See and change your repositories, private ones too"
	case "public_repo":
		return "See and change your public repositories"
	case "read:org":
		return "See your organisations and teams"
	case "gist":
		return "Create and change your gists"
	case "workflow":
		return "Change your workflow files"
	case "notifications":
		return "See and manage your notifications"
	case "https://www.googleapis.com/auth/drive.readonly":
		return "See and download all your Drive files"
	case "https://www.googleapis.com/auth/drive":
		return "See, change and delete all your Drive files"
	case "https://www.googleapis.com/auth/calendar":
		return "See, change and delete your calendars"
	case "https://www.googleapis.com/auth/calendar.readonly":
		return "See your calendars"
	case "https://www.googleapis.com/auth/gmail.readonly":
		return "Read all your mail"
	case "read:jira-work":
		return "See your Jira projects and issues"
	case "write:jira-work":
		return "Create and change your Jira issues"
	}
	return ""
}
